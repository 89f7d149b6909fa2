"""Standard output and standard error, and the progress bar."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def configure_output() -> None:
    """Print each line at once, and characters that the encoding lacks as escapes.

    A stream that was closed before the program started is replaced by a buffer.
    """
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's stream does so by itself
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def flush_output(status: int) -> int:
    """Flush standard output at the end of the program; return its exit status, 1 if that fails."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python would fail to flush it once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return max(status, 1)
    return status


@contextmanager
def silenced() -> Iterator[None]:
    """Print nothing inside the block; exceptions pass through."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def is_interactive() -> bool:
    """Whether a bar can be redrawn in place, as in a terminal or notebook but not in a file."""
    with suppress(OSError, ValueError, AttributeError):  # IDLE's stream has no descriptor
        # In a terminal that reports 0 rows, as under expect, tqdm hides its bars.
        return "ipykernel" in sys.modules or os.get_terminal_size(sys.stderr.fileno()).lines > 0
    return False


def make_bar(*arguments: Any, **options: Any) -> Any:
    """A progress bar of tqdm, which in a notebook is a widget if ipywidgets is installed."""
    # tqdm.auto would print a warning in a notebook without ipywidgets.
    name = "tqdm.auto" if find_spec("ipywidgets") else "tqdm"
    return import_module(name).tqdm(*arguments, dynamic_ncols=True, **options)  # a slow import


def with_bar(items: Sequence, description: str) -> Iterator:
    """Iterate over the items, and show how many are done."""
    seconds = 0.25 if is_interactive() else 30
    return iter(make_bar(items, description, leave=False, mininterval=seconds))


@contextmanager
def progress(run: int, initial: int, total: int) -> Iterator[tuple[Callable, float]]:
    """Show the progress of a run inside the block.

    Yields:
        a function that shows a step and its loss, and the seconds to wait between its calls.
    """
    interactive = is_interactive()
    file = None if interactive else io.StringIO()  # only its text is used, line by line
    bar = make_bar(desc=f"run {run}", initial=initial, total=total, file=file)

    def show(step: int, loss: float) -> None:
        """Show how far the run is."""
        bar.n = step
        bar.set_postfix(loss=f"{loss:.1f}")
        if not interactive and not bar.disable:
            print(bar, file=sys.stderr)

    with bar:
        yield show, float(os.environ.get("TQDM_MININTERVAL", 0.25 if interactive else 30))
