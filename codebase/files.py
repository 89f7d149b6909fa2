"""Files that are there whole or not at all, and folders that one process has to itself."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout  # comes with torch, which depends on it

from codebase.errors import BusyError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it, so no reader sees a part.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is as it was, and
            the temporary one is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except OSError as error:  # a full disk names no file, and the temporary one says nothing
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, whole or not at all.

    Raises:
        OSError: as `write_atomically`.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode())


def append_row(path: Path, row: Sequence[object]) -> None:
    """Add a row to a table that `write_table` wrote."""
    with open(path, "a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is absent, and keep other processes from training in it.

    The operating system drops the lock of a process that dies. What such a process left half
    written is removed.

    Raises:
        BusyError: another process holds the folder; the message names it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / ".pid"
    try:
        with FileLock(folder / ".lock", timeout=0):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()
            write_atomically(holder, str(os.getpid()).encode())
            yield
    except Timeout:
        process = holder.read_text() if holder.exists() else "another one"
        raise BusyError(
            f"process {process} is training in {folder}; wait for it, or choose another --run"
        ) from None
