"""Files that are written whole or not at all."""

import csv
import errno
import io
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

# A file that a virus scanner reads (on Windows), or that is on a network, refuses for a moment.
MOMENTARY = (errno.EACCES, errno.EPERM, errno.EAGAIN, errno.EBUSY, errno.ESTALE)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it, so no reader sees a part.

    If renaming is refused, it is tried again for a second. After an OSError, the old file is
    unchanged and the temporary one is removed.
    """
    # Processes in two containers may have the same number, but write into one folder.
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave an empty file
        for pause in (0.05, 0.1, 0.2, 0.3, 0.4, None):
            try:
                os.replace(temporary, path)
                break
            except OSError as error:
                if error.errno not in MOMENTARY or pause is None:
                    raise
                time.sleep(pause)
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
