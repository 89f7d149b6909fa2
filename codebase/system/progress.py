"""The progress bar of a run."""

from tqdm import tqdm


class Bar(tqdm):
    """The progress bar of a run on standard error, which is drawn when `show` is called.

    Args:
        run: the run's number.
        total: its number of steps.
    """

    def __init__(self, run: int, total: int):
        super().__init__(desc=f"run {run}", total=total, dynamic_ncols=True)

    def show(self, step: int, loss: float) -> None:
        """Draw the bar."""
        if self.n == 0:  # what was before counts for no speed
            self.reset()
            self.initial = step
        self.n = step
        self.set_postfix(loss=f"{loss:.2e}")
