"""Standard output and standard error, whatever they are connected to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class Lenient:
    """A stream that goes on without a sound where nothing can be written any more."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text if that is possible."""
        try:
            return self.stream.write(text)
        except OSError:
            discard(self.stream)
            return len(text)

    def flush(self) -> None:
        """Hand on what was written if that is possible."""
        try:
            self.stream.flush()
        except OSError:
            discard(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def discard(stream: TextIO) -> None:
    """Send what the stream still holds, and all that follows, to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def only_errors() -> Iterator[None]:
    """Print nothing inside the block; what it raises goes on."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def prepare_streams() -> None:
    """Make standard output and standard error of this program fit for any use.

    A standard error that is closed or full is no reason to stop. Standard output hands on each line
    at once, and writes what its encoding does not have as escapes.
    """
    # Else the next file that is opened would take the number of a stream that is closed.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        name = ("stdin", "stdout", "stderr")[number]
        setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    os.close(number)
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore
    sys.stderr = Lenient(sys.stderr)
