"""What is shown while a run trains, by a clock that nobody sets back."""

import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def every(seconds: float) -> Callable[[], bool]:
    """A function that says whether `seconds` have passed since it last said so."""
    last = time.monotonic()

    def due() -> bool:
        """Ask."""
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due


class Bar(tqdm):
    """The progress bar of a run on standard error, which is drawn when `show` is called.

    Args:
        run: the run's number.
        total: its number of steps.
        leave: whether the bar stays when it is closed.
    """

    def __init__(self, run: int, total: int, leave: bool = True):
        self.began = time.monotonic()
        super().__init__(desc=f"run {run}", total=total, leave=leave, dynamic_ncols=True)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm draws the bar from, with the time of a clock that is never set back."""
        shown = super().format_dict
        columns = shown["ncols"] and shown["ncols"] - 2  # a terminal's ^C beside it tears no line
        return shown | {"elapsed": time.monotonic() - self.began, "ncols": columns}

    def show(self, step: int, loss: float) -> None:
        """Draw the bar."""
        if self.n == 0:  # what was before counts for no speed
            self.initial, self.began = step, time.monotonic()
        self.n = step
        self.set_postfix(loss=f"{loss:.2e}")

    def close(self) -> None:
        """Leave the bar or wipe it out, and the cursor at the start of a line."""
        closed = self.disable
        super().close()
        if not self.leave and not closed:  # below other bars, tqdm wipes and goes up only
            self.fp.write("\r")
