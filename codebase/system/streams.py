"""Standard output and standard error, whatever they are connected to."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class Lenient:
    """A stream that goes on without a sound where nothing can be written any more.

    Attributes:
        error: why something was lost; None if nothing was.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text if that is possible."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what was written if that is possible."""
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Send what the stream still holds, and all that follows, to nowhere."""
        self.error = error
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lenient_streams() -> Iterator[tuple[Lenient, Lenient]]:
    """Inside the block no run ends because standard output or standard error cannot be written.

    Standard output hands on each line at once, and writes what its encoding does not have as
    escapes; a notebook's does so by itself.
    """
    # Else the next file that is opened would take the number of a stream that is closed.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        name = ("stdin", "stdout", "stderr")[number]
        setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    os.close(number)
    before = sys.stdout, sys.stderr
    usual: dict[str, Any] = {}
    if isinstance(sys.stdout, io.TextIOWrapper):
        usual = {"errors": sys.stdout.errors, "line_buffering": sys.stdout.line_buffering}
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    both = Lenient(sys.stdout), Lenient(sys.stderr)
    sys.stdout, sys.stderr = both
    try:
        yield both
    finally:
        for stream in both:
            stream.flush()
        sys.stdout, sys.stderr = before
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(**usual)


@contextmanager
def only_errors() -> Iterator[None]:
    """Print nothing inside the block; what it raises goes on."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
