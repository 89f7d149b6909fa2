"""Lists the files of a hand-in in folders and archives."""

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISLNK
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from codebase.system.errors import UserError

LARGEST, DEEPEST = 256 << 20, 3  # bytes of the files in an archive, and archives in archives
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
# Copies, caches and libraries. Names that begin with a dot are passed over, too.
PASSED_OVER = {"__macosx", "__pycache__", "site-packages", "venv", "env"}


def is_visible(path: str) -> bool:
    """Whether a file or folder is read."""
    parts = [part.lower() for part in path.split("/") if part not in ("", ".", "..")]
    return not any(part.startswith(".") or part in PASSED_OVER for part in parts)


def files_in(
    name: str, path: Path, is_wanted: Callable[[str], object], depth: int = 0
) -> Iterator[tuple[str, Path]]:
    """List the names and paths of the wanted files in a folder, an archive or a file.

    In a name, archives are like folders; a folder that is called "" is left out of it. The path of
    an unpacked file exists until the next one is asked for. Raises UserError for an archive that is
    damaged, too large or nested too deeply, or that has a path out of it.
    """
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            inner = "".join(x if x.isprintable() else "?" for x in child.name)
            inner = inner.replace("\\", "/")  # Some archives from Windows have backslashes.
            if is_visible(inner):
                inner = f"{name}/{inner}" if name else inner
                yield from files_in(inner, child, is_wanted, depth)
    elif not ARCHIVE.search(name) or path.is_symlink():
        if is_wanted(name):
            yield name, path
    elif depth == DEEPEST:
        raise UserError(f"{name} is inside of {depth} archives; send only the tasks' files")
    else:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            unpack(name, path, Path(folder), is_wanted)
            yield from files_in(name, Path(folder), is_wanted, depth + 1)


def unpack(name: str, path: Path, folder: Path, is_wanted: Callable[[str], object]) -> None:
    """Unpack the wanted files of an archive, and archives in it, into a folder."""
    left = LARGEST

    def is_needed(member: str, size: int, is_link: bool) -> bool:
        nonlocal left
        member = member.replace("\\", "/")
        needed = is_visible(member) and bool(ARCHIVE.search(member) or is_wanted(member))
        left -= size if needed else 0
        problem = "is a link" if is_link else "is too large" if left < 0 else ""
        if ".." in member.split("/") or re.match(r"/|\w:", member):
            problem = "leads out of its archive"
        if needed and problem:
            raise ValueError(f"{member} {problem}")
        return needed

    try:
        if path.suffix.lower() == ".zip":
            with ZipFile(path) as zipped:
                for x in zipped.infolist():
                    if is_needed(x.filename, x.file_size, S_ISLNK(x.external_attr >> 16)):
                        zipped.extract(x, folder)
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    if is_needed(member.name, member.size, member.islnk() or member.issym()):
                        archive.extract(member, folder, filter="data")
    except Exception as error:  # zipfile, tarfile and what they use raise many kinds.
        raise UserError(f"{name} cannot be read ({error}); send only the tasks' files") from None
