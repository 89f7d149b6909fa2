"""Splits the folder of a class into hand-ins, as Canvas, Moodle, Gradescope and drives give it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from assignment.archives import ARCHIVE, is_visible
from assignment.sources import decode
from assignment.submission import LIKE
from codebase.system.errors import UserError

NAMES = (
    # Canvas: doejane_LATE_12345_67890_utils.py
    r"(?P<name>[^_]+)(?P<late>_LATE)?_(?P<id>\d+)_\d+_(?P<file>.+)",
    # Moodle: Jane Doe_1234567_assignsubmission_file_, a folder or the beginning of a file's name
    r"(?P<name>.+?)(_(?P<id>\d+))?_assignsubmission_[a-z]+_?(?P<file>.*)",
    # Others: jane.zip, jane.ipynb, jane_doe_utils.py
    rf"(?P<name>.+?)({ARCHIVE.pattern}|\.ipynb$)",
    r"(?P<name>.+?)[ _-]+(?P<file>(utils|vae|visualize)\b.*)",
)
METADATA = "submission_metadata.yml"  # the students' names in Gradescope's export


class Entry(NamedTuple):
    """A hand-in of a class."""

    student: str
    is_late: bool
    parts: list[tuple[str, Path]]  # the names and paths of its folders, archives and files


def entries(folder: Path, ignored: set[Path]) -> tuple[list[Entry], list[str]]:
    """Split a folder into hand-ins by their students' names, and list files that belong to nobody.

    `ignored` has absolute paths of what is neither. Raises UserError for the folder of one student,
    or if there is no hand-in.
    """
    visible = sorted(x for x in folder.iterdir() if is_visible(x.name))
    children = [x for x in visible if x.resolve() not in ignored]
    if len(children) == 1 and children[0].is_dir():  # such as assignment_123_export
        inner = [x for x in children[0].iterdir() if x.is_dir() or _match(x.name)]
        if len(inner) > 1 and not (children[0] / "codebase").exists():
            return entries(children[0], ignored)
    single = [x.name for x in children if any(like.fullmatch(x.name) for like in LIKE.values())]
    if (folder / "codebase").exists() or any(not _match(name) for name in single):
        raise UserError(f"{folder} is one hand-in; check it with python -m assignment.check")
    names = _gradescope_names(folder / METADATA)
    parts, late = dict[tuple[str, str], list[tuple[str, Path]]](), set[tuple[str, str]]()
    for child in children:
        match = _match(child.name)
        groups: dict[str, Any] = match.groupdict() if match else {"name": child.name}
        if name := names.get(child.name):
            groups = {"name": name, "id": child.name}
        if match or child.is_dir():
            student = groups["name"], groups.get("id") or ""
            part = "" if child.is_dir() else groups.get("file") or child.name
            parts.setdefault(student, []).append((part, child))
            late |= {student} if groups.get("late") else set()
    if not parts:
        raise UserError(f"{folder} has no hand-ins: no folders, archives or files of students")
    found = []
    for student in sorted(parts):
        is_only = [name for name, _ in parts].count(student[0]) == 1
        name = student[0] if is_only else " ".join(student)
        found.append(Entry(name, student in late, parts[student]))
    used = {path for each in found for _, path in each.parts} | {folder / METADATA}
    return found, [child.name for child in children if child not in used]


def _match(name: str) -> re.Match[str] | None:
    """The parts of a file's or folder's name that begins with that of a student."""
    matches = (re.fullmatch(pattern, name, re.IGNORECASE) for pattern in NAMES)
    return next(filter(None, matches), None)


def _gradescope_names(metadata: Path) -> dict[str, str]:
    """The students' names for each folder of Gradescope's export."""
    text = decode(metadata.read_bytes()) if metadata.is_file() else ""
    blocks = re.findall(r"^(\w+):\n((?:[ -].*\n)+)", text, re.MULTILINE)
    name = re.compile(r"^[ -]+:name: *['\"]?(.*?)['\"]?$", re.MULTILINE)
    return {folder: " and ".join(name.findall(block)) for folder, block in blocks}
