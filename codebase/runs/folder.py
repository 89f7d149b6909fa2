"""A run's folder: where its files are, who may write into it, and where an earlier run goes."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from filelock import Timeout

from codebase.settings import Settings
from codebase.system.errors import BusyError
from codebase.system.files import lock

CHECKPOINTS = Path("checkpoints")


def run_folder(settings: Settings) -> Path:
    """The folder that holds all files of the run, and nothing of any other."""
    return CHECKPOINTS / settings.name


def model_path(folder: Path, step: int) -> Path:
    """The file that holds the model after `step` training steps, and nothing else."""
    return folder / f"model-{step:05d}.pt"


def state_path(folder: Path) -> Path:
    """The file that holds all that is needed to go on with the run."""
    return folder / "training-state.pt"


def saved_steps(folder: Path) -> list[int]:
    """The steps whose models are in `folder`, in rising order."""
    names = (re.fullmatch(r"model-(\d{5,})\.pt", path.name) for path in folder.glob("model-*.pt"))
    return sorted(int(name[1]) for name in names if name)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is absent, and keep other processes from training in it.

    The lock is beside the folder, which may be moved. The operating system drops the lock of a
    process that dies. A folder that another process holds is a BusyError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder.with_name(f".{folder.name}.lock"), 0))
        except Timeout:
            advice = "wait for it, or choose another --run"
            raise BusyError(f"another process is training in {folder}; {advice}") from None
        folder.mkdir(exist_ok=True)
        yield


def is_used(folder: Path) -> bool:
    """Whether a run has saved something in the folder."""
    return bool(saved_steps(folder)) or state_path(folder).exists()


def move_aside(folder: Path) -> Path | None:
    """Rename the folder of an earlier run to the first free of NAME.1, NAME.2, ...; give that.

    A folder in which no run has saved anything is used as it is, and None is given.
    """
    if not is_used(folder):
        return None
    places = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
    place = next(place for place in places if not os.path.lexists(place))
    folder.rename(place)
    folder.mkdir()
    return place
