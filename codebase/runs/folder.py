"""The folder of a run: its files, its lock, and where an earlier run goes."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from codebase.settings import Settings
from codebase.system.errors import UserError

CHECKPOINTS = Path("checkpoints")


class RunFolder:
    """The folder that holds all files of one run."""

    def __init__(self, settings: Settings, root: Path = CHECKPOINTS):
        self.settings = settings
        self.path = root / settings.name
        self.state = self.path / "training-state.pt"  # --resume 1 continues from it
        self.metrics = self.path / "metrics.csv"
        self.settings_file = self.path / "settings.json"

    def model(self, step: int) -> Path:
        """The file of the model after `step` training steps."""
        return self.path / f"model-{step:05d}.pt"

    def results(self, step: int) -> Path:
        """The file of all measurements of the model after `step` training steps."""
        return self.path / f"results-{step:05d}.json"

    def saved_steps(self, kind: str = "model") -> list[int]:
        """The steps of the models, or of the "results", in the folder, in rising order."""
        files = self.path.glob(f"{kind}-*")
        names = (re.fullmatch(rf"{kind}-(\d{{5,}})\.(pt|json)", file.name) for file in files)
        return sorted(int(name[1]) for name in names if name)

    def is_used(self) -> bool:
        """Whether a run has saved something in the folder."""
        return bool(self.saved_steps()) or self.state.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder, and raise UserError if another process is training in it.

        The system releases the lock if the process dies. Some network file systems have no locks;
        there this prints a warning instead.
        """
        root = self.path.parent
        root.mkdir(parents=True, exist_ok=True)
        # The lock file is beside the folder, because the folder may be moved.
        lock = FileLock(root / f".{self.path.name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            advice = "wait for it, or choose another --run"
            raise UserError(f"another process is training in {self.path}; {advice}") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            warning = f"Warning: {root} is on a file system without locks"
            print(f"{warning}; start no second process for the same run", file=sys.stderr)
        try:
            self.path.mkdir(exist_ok=True)
            yield
        finally:
            lock.release()

    def move_aside(self) -> Path | None:
        """Rename the folder of an earlier run to the first free of NAME.1, NAME.2, ...

        Returns the new path, or None if no run has saved anything, so that nothing is moved.
        """
        if not self.is_used():
            return None
        places = (self.path.with_name(f"{self.path.name}.{number}") for number in count(1))
        place = next(place for place in places if not os.path.lexists(place))
        self.path.rename(place)
        self.path.mkdir()
        return place
