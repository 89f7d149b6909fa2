"""Files that are there whole or not at all."""

import csv
import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it, so no reader sees a part.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is as it was, and
            the temporary one is gone.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except OSError as error:  # a full disk names no file, and the temporary one says nothing
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            temporary.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, seconds: float) -> Iterator[None]:
    """Hold a lock, which the system drops with the process; wait for it, forever if below 0.

    Where the file system knows no locks, as some that a network shares, a sentence says so.

    Raises:
        filelock.Timeout: another process holds it.
    """
    held = FileLock(path, timeout=seconds)
    try:
        held.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:  # as of a Timeout, which has no number
            raise
        advice = "start no second process for the same run"
        warning = f"{path.parent} is on a file system without locks; {advice}"
        print(f"Warning: {warning}", file=sys.stderr)
    try:
        yield
    finally:
        held.release()


def write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode())
