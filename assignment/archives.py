"""Reads the files of a hand-in in folders and archives, without unpacking anything."""

import io
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from codebase.system.errors import UserError

LARGEST, DEEPEST = 256 << 20, 3  # bytes of a file or archive, and archives in archives
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
# Copies, caches and libraries. Names that begin with a dot are passed over, too.
PASSED_OVER = {"__macosx", "__pycache__", "site-packages", "venv", "env"}
Member = tuple[str, bool, Callable[[], Any]]  # path, whether it is a link, what opens it


def is_visible(path: str) -> bool:
    """Whether a file or folder is read."""
    parts = [part.lower() for part in path.split("/") if part not in ("", ".", "..")]
    return not any(part.startswith(".") or part in PASSED_OVER for part in parts)


def on_disk(parts: Iterable[tuple[str, Path]]) -> Iterator[Member]:
    """The files of folders and files, each with its name."""
    for name, path in parts:
        if path.is_symlink() or not path.is_dir():
            yield name, path.is_symlink(), partial(open, path, "rb")
            continue
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(filter(is_visible, folders))
            for file in (Path(folder, each) for each in sorted(files)):
                inner = "/".join([*filter(None, [name]), *file.relative_to(path).parts])
                yield inner, file.is_symlink(), partial(open, file, "rb")


def in_archive(name: str, content: bytes) -> Iterator[Member]:
    """The files of a zip or a tar archive."""
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for file in archive.infolist():
                if not file.is_dir():
                    is_link = stat.S_ISLNK(file.external_attr >> 16)
                    yield f"{name}/{file.filename}", is_link, partial(archive.open, file)
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:  # All are unpacked in turn, wanted or not.
                if member.offset_data + member.size > 4 * LARGEST:
                    raise UserError(f"{name} is too large; send the files of the tasks alone")
                if not member.isdir():
                    is_link, opened = not member.isfile(), partial(archive.extractfile, member)
                    yield f"{name}/{member.name}", is_link, opened


def read_files(
    members: Iterable[Member], is_wanted: Callable[[str], object], depth: int = 0
) -> Iterator[tuple[str, bytes | None]]:
    """Read the wanted files in memory, also those in archives; nothing is unpacked.

    Yields:
        the path, in which archives are like folders, and the content, or None for a link.

    Raises:
        UserError: an archive is damaged, too large, nested too deeply, or has a path out of it.
    """
    for raw, is_link, opened in members:
        path = "".join(c if c.isprintable() else "?" for c in raw.replace("\\", "/"))
        path = path.replace("/./", "/")
        is_archive = bool(ARCHIVE.search(path))
        if depth and (".." in path.split("/") or re.search(r"//|/\w:", path)):
            raise UserError(f"{path} leads out of its archive; send it without such paths")
        if not is_visible(path) or not (is_archive or is_wanted(path)):
            continue
        if is_link:
            yield path, None
            continue
        with opened() as file:
            content = file.read(LARGEST + 1)  # The size that an archive states may be wrong.
        if len(content) > LARGEST or (is_archive and depth == DEEPEST):
            reason = "too large" if len(content) > LARGEST else f"inside of {depth} archives"
            raise UserError(f"{path} is {reason}; send the files of the tasks alone")
        if not is_archive:
            yield path, content
            continue
        try:
            yield from read_files(in_archive(path, content), is_wanted, depth + 1)
        except UserError:
            raise
        except Exception as error:  # zipfile, tarfile and what they use raise many kinds.
            raise UserError(f"{path} cannot be read ({error}); send it again") from None
