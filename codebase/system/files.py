"""Files that are written whole or not at all."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it, so no reader sees a part.

    After an OSError, the old file is unchanged and the temporary one is removed.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave an empty file
        os.replace(temporary, path)
    except OSError as error:
        # The error of a full disk names no file, and the temporary file's name helps nobody.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # a folder that cannot be written cannot be cleaned up either
            temporary.unlink(missing_ok=True)


def write_csv(path: Path, lines: Iterable[Sequence[object]]) -> None:
    """Write lines of cells as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomically(path, text.getvalue().encode())
