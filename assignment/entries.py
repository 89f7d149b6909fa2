"""Splits the folder of a class into hand-ins, as Canvas, Moodle, Gradescope and drives give it."""

import re
from pathlib import Path
from typing import NamedTuple

from assignment.archives import ARCHIVE, is_visible, printable
from assignment.sources import decode
from assignment.submission import LIKE
from codebase.system.errors import UserError

# A file such as doejane_LATE_12345_67890_utils.py.
CANVAS = re.compile(r"(?P<name>[^_]+)(?P<late>_LATE)?_(?P<id>\d+)_\d+_(?P<file>.+)")
# A folder such as Jane Doe_1234567_assignsubmission_file_, or a file whose name begins like that.
MOODLE = re.compile(r"(?P<name>.+?)(_(?P<id>\d+))?_assignsubmission_[a-z]+_?(?P<file>.*)")
METADATA = "submission_metadata.yml"  # the names of the students in Gradescope's export
# A file such as jane_doe_utils.py, or one that holds all of a hand-in.
SINGLE = re.compile(r"(?P<name>.+?)[ _-]+(?P<file>(utils|vae|visualize)\b.*)", re.IGNORECASE)
WHOLE = re.compile(rf"(?P<name>.+?)({ARCHIVE.pattern}|\.ipynb$)", re.IGNORECASE)


class Entry(NamedTuple):
    """A hand-in of a class."""

    student: str
    is_late: bool
    parts: list[tuple[str, Path]]  # the names and paths of its folders, archives and files


def entries(folder: Path, ignored: set[Path]) -> tuple[list[Entry], list[str]]:
    """Split a folder into hand-ins, in the order of the students' names.

    Args:
        ignored: absolute paths of files and folders that are no hand-ins.

    Returns:
        the hand-ins, and the names of files that belong to nobody.

    Raises:
        UserError: the folder is that of one student, or has no hand-in.
    """
    children = _children(folder, ignored)
    if len(children) == 1 and children[0].is_dir():  # such as assignment_123_export
        inner = _children(children[0], ignored)
        if sum(each.is_dir() or bool(_match(each.name)) for each in inner) > 1:
            return entries(children[0], ignored)
    if any(each.name == "codebase" or _is_code(each.name) for each in children):
        raise UserError(f"{folder} is one hand-in; check it with python -m assignment.check")
    names = _gradescope_names(folder / METADATA)
    parts, late, unknown = dict[tuple[str, str], list[tuple[str, Path]]](), set(), list[str]()
    for child in children:
        match = _match(child.name)
        if match or child.is_dir():
            groups = match.groupdict() if match else {"name": names.get(child.name, child.name)}
            student = printable(groups["name"]), groups.get("id") or ""
            name = "" if child.is_dir() else groups.get("file") or child.name
            parts.setdefault(student, []).append((name, child))
            late |= {student} if groups.get("late") else set()
        elif child.name != METADATA:
            unknown.append(printable(child.name))
    if not parts:
        raise UserError(f"{folder} has no hand-ins: no folders, archives or files of students")
    names_found = [name for name, _ in parts]
    return [
        Entry(
            name if names_found.count(name) == 1 else f"{name} {number}",
            (name, number) in late,
            parts[name, number],
        )
        for name, number in sorted(parts)
    ], unknown


def _children(folder: Path, ignored: set[Path]) -> list[Path]:
    """The visible files and folders in a folder."""
    children = (each for each in folder.iterdir() if is_visible(each.name))
    return sorted(each for each in children if each.resolve() not in ignored)


def _is_code(name: str) -> bool:
    """Whether a file's name is that of a task, and tells no student."""
    return any(like.fullmatch(name) for like in LIKE.values()) and not _match(name)


def _match(name: str) -> re.Match[str] | None:
    """The parts of a file's or folder's name that begins with that of a student."""
    matches = [pattern.fullmatch(name) for pattern in (CANVAS, MOODLE, WHOLE, SINGLE)]
    return next(filter(None, matches), None)


def _gradescope_names(metadata: Path) -> dict[str, str]:
    """The students' names for each folder of Gradescope's export."""
    names = dict[str, str]()
    folder = ""
    for line in decode(metadata.read_bytes()).splitlines() if metadata.is_file() else ():
        if match := re.match(r"(\w+):", line):
            folder = match[1]
        elif match := re.match(r"\s+(?:- )?:name: *['\"]?(.*?)['\"]?$", line):
            names[folder] = f"{names[folder]} and {match[1]}" if folder in names else match[1]
    return names
