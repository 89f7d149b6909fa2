"""Reads the files of a hand-in from folders and archives, without unpacking anything."""

import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from codebase.system.errors import UserError

MB = 1 << 20
LARGEST_FILE, LARGEST_TAR, ALL_FILES = 32 * MB, 1024 * MB, 256 * MB
MOST_MEMBERS, DEEPEST = 200_000, 3
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
# Copies, caches and libraries. Names that begin with a dot are passed over, too.
PASSED_OVER = {"__macosx", "__pycache__", "site-packages", "node_modules", "venv", "env"}
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)

Member = tuple[str, bool, Callable[[], Any]]  # its path, whether it is a link, and what opens it


class Reader:
    """Collects the contents of wanted files by their paths, and notes about files passed over.

    An archive is a part of the path: `hw.zip/codebase/utils.py`. Links are not followed.

    Args:
        wanted: whether a file of this path is read.

    Raises:
        UserError: an archive is damaged, too large, nested too deeply, or has a path that leads
            out of it.
    """

    def __init__(self, wanted: Callable[[str], object]):
        self.wanted = wanted
        self.files: dict[str, bytes] = {}
        self.notes: list[str] = []
        self.bytes_left = ALL_FILES

    def add(self, name: str, path: Path) -> None:
        """Read a file, an archive or a folder, and call it `name`."""
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            for child in sorted(path.iterdir()):
                if is_visible(child.name):
                    self.add(f"{name}/{child.name}" if name else child.name, child)
        elif self.is_read(name, stat.S_ISLNK(kind)) and stat.S_ISREG(kind):
            with open(path, "rb") as file:
                self.add_file(printable(name), file, 0)

    def is_read(self, name: str, is_link: bool) -> bool:
        """Whether a file is wanted or an archive, and no link."""
        relevant = bool(self.wanted(name) or ARCHIVE.search(name))
        if relevant and is_link:
            self.notes.append(f"{printable(name)} is a link and was not read.")
        if name.lower().endswith((".rar", ".7z")):
            self.notes.append(f"{printable(name)} was not read: send a zip instead.")
        return relevant and not is_link

    def add_file(self, name: str, file: IO[bytes], depth: int) -> None:
        """Read an open file or archive, which is inside of `depth` archives."""
        is_archive = ARCHIVE.search(name)
        if is_archive and not depth:  # may be large, and is not read as a whole
            return self.add_archive(name, file, 1)
        most = min(self.bytes_left, ALL_FILES if is_archive else LARGEST_FILE)
        content = file.read(most + 1)  # The size that an archive states may be wrong.
        self.bytes_left -= len(content)
        if len(content) > most:
            raise UserError(f"{name} is too large: more than {most // MB} MB")
        if is_archive:
            self.add_archive(name, io.BytesIO(content), depth + 1)
        else:
            self.files[name] = content

    def add_archive(self, name: str, file: IO[bytes], depth: int) -> None:
        """Read the wanted members of an archive, the innermost of `depth` archives."""
        if depth > DEEPEST:
            raise UserError(f"{name} is inside of {depth - 1} archives; send a single one")
        members = _members_of_zip if name.lower().endswith(".zip") else _members_of_tar
        try:
            for member, is_link, opened in members(name, file):
                parts = member.replace("\\", "/").split("/")
                if ".." in parts or re.match(r"[/\\]|\w:", member):
                    raise UserError(f"{name} has a path that leads out of it, {printable(member)}")
                path = "/".join([name, *(part for part in parts if part not in ("", "."))])
                if all(map(is_visible, parts)) and self.is_read(path, is_link):
                    with opened() as content:
                        self.add_file(printable(path), content, depth)
        except (*DAMAGED, NotImplementedError, RuntimeError, ValueError) as error:
            raise UserError(f"{name} cannot be read ({error}); send it again as a zip") from None


def _members_of_zip(name: str, file: IO[bytes]) -> Iterator[Member]:
    """The files of a zip."""
    with zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > MOST_MEMBERS:
            raise UserError(f"{name} is too large: more than {MOST_MEMBERS} files")
        for member in archive.infolist():
            if not member.is_dir():
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                yield member.filename, is_link, partial(archive.open, member)


def _members_of_tar(name: str, file: IO[bytes]) -> Iterator[Member]:
    """The files of a tar archive, compressed or not."""
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            # All members are unpacked in turn, wanted or not.
            if member.offset_data + member.size > LARGEST_TAR:
                raise UserError(f"{name} is too large: more than {LARGEST_TAR // MB} MB")
            is_link = member.issym() or member.islnk()
            if member.isfile() or is_link:
                yield member.name, is_link, partial(archive.extractfile, member)


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is read."""
    return name in ("", ".") or (not name.startswith(".") and name.lower() not in PASSED_OVER)


def printable(text: str) -> str:
    """The text without control characters and halves of characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
