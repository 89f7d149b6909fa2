"""How far a run is: a bar in a terminal or a notebook, elsewhere a line now and then."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import auto


def is_drawn() -> bool:
    """Whether a bar is drawn over and over, as in a terminal or a notebook, and not in a file."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


@contextmanager
def progress(run: int, initial: int, total: int) -> Iterator[tuple[Callable, float]]:
    """Show the progress of a run inside the block.

    Yields:
        a function of step and loss that shows them, and the seconds after which to call it again.
    """
    options = {} if is_drawn() else {"file": io.StringIO()}
    with auto.tqdm(
        desc=f"run {run}", initial=initial, total=total, dynamic_ncols=True, **options
    ) as bar:

        def show(step: int, loss: float) -> None:
            """Show how far the run is."""
            bar.n = step
            bar.set_postfix(loss=f"{loss:.2e}")
            if options and not bar.disable:
                print(bar, file=sys.stderr)

        yield show, float(os.environ.get("TQDM_MININTERVAL", 30 if options else 0.25))
