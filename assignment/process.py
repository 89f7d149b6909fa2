"""Runs a student's files in processes that have a copy of the project without our solution."""

import atexit
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import NamedTuple

from assignment import ROOT, UTILS, VAE, VISUALIZE
from assignment.probe import Inputs, Record
from assignment.student import pack, unpack
from assignment.submission import Submission

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "MPLCONFIGDIR")
LARGEST = 64 << 20  # bytes of an answer
_helpers: list[tuple[Popen, TemporaryDirectory]] = []  # at most one


class Reply(NamedTuple):
    """The record of a student's function, or a sentence instead, and notes."""

    record: Record
    failure: str
    notes: Sequence[str] = ()
    used: float = 0.0  # seconds of processor time, or a third of those that passed
    at_import: bool = False  # Other tasks of the same file would fail likewise.


@contextmanager
def project(submission: Submission) -> Iterator[Path]:
    """A folder with the project and the student's files in the place of ours."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        ignored = shutil.ignore_patterns("__pycache__", "explorer.*")
        shutil.copytree(ROOT / "codebase", folder / "codebase", ignore=ignored)
        for file in (UTILS, VAE, VISUALIZE):
            missing = f"raise ImportError('{Path(file).name} was not sent')\n"
            (folder / file).write_text(submission.files.get(file, missing), encoding="utf-8")
        for file, text in submission.helpers.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


def ask(folder: Path, task: str, file: str, inputs: Inputs, seconds: float) -> Reply:
    """Ask for the answer of a student's function in a folder of `project`."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    request = {"folder": str(folder), "task": task, "file": file, "seconds": seconds}
    ended = _exchange(json.dumps(request | {"inputs": pack(inputs)}))
    notes = ["processes that it left running were killed"] * bool(ended.get("left"))
    printed = read(work / "printed").strip()
    if printed:
        notes.append(
            f"it prints {len(printed)} characters, beginning: {' '.join(printed[:100].split())}"
        )
    used = float(ended.get("used", seconds))
    with suppress(ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        record = unpack(read(work / "answer"))
        if "failure" not in record:
            return Reply(record, "", notes, used)
        failure = str(record["failure"])
        return Reply({}, failure, notes, used, record.get("stage") == "import")
    status = ended.get("status")
    if hanging := read(work / "hanging"):
        sentence, at_import = _where(hanging, folder, seconds)
        return Reply({}, sentence, notes, used, at_import)
    if status is None:
        return Reply({}, f"it did not end within {seconds:.0f} seconds", notes, used)
    cause = f"by signal {-status}" if status < 0 else f"with status {status}"
    return Reply({}, f"its process ended {cause}", notes, used)


def _where(hanging: str, folder: Path, seconds: float) -> tuple[str, bool]:
    """The sentence for a process that hangs, from its traceback, the innermost line first."""
    lines = re.findall(r'File "(.*)", line (\d+) in (.*)', hanging)
    theirs = [each for each in lines if each[0].startswith(str(folder / "codebase"))]
    sentence = f"it did not end within {seconds:.0f} seconds"
    at_import = bool(theirs) and theirs[-1][2] == "<module>"
    if theirs:
        sentence += f": it was in line {theirs[0][1]} of {Path(theirs[0][0]).name}"
    if at_import:
        sentence += '; nothing may run at import: put it below `if __name__ == "__main__":`'
    return sentence, at_import


def read(path: Path) -> str:
    """The text of a file that the student's process may have written, "" if there is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(OSError):
        descriptor = os.open(path, flags)
        with open(descriptor, errors="replace") as file:
            return file.read(LARGEST)
    return ""


def _exchange(request: str) -> dict:
    """Send a request to the helper process, and return what it says about the end of its fork."""
    helper = _helper()
    try:
        assert helper.stdin and helper.stdout
        helper.stdin.write(request + "\n")
        helper.stdin.flush()
        return json.loads(helper.stdout.readline())
    except (OSError, ValueError):  # The student's process has ended it, or there are no forks.
        status = {"status": helper.wait()}
        stop()
        return status


def _helper() -> Popen:
    """The helper process, started if there is none."""
    if not _helpers:
        folder = TemporaryDirectory(ignore_cleanup_errors=True)
        package = Path(folder.name, "assignment")
        package.mkdir()
        for name in ("__init__.py", "helper.py", "probe.py", "student.py"):
            shutil.copy(ROOT / "assignment" / name, package)
        # The environment may hold secrets. Installed packages are found where this process does.
        variables = {key: os.environ[key] for key in KEPT if key in os.environ}
        variables |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
        variables |= {"PYTHONDONTWRITEBYTECODE": "1"}
        paths = [x for x in sys.path if x and Path(x).resolve() not in (ROOT, Path.cwd())]
        variables["PYTHONPATH"] = os.pathsep.join([folder.name, *paths])
        command = [sys.executable, "-m", "assignment.helper"]
        helper = Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True, cwd=folder.name,
            env=variables, start_new_session=True,
        )  # fmt: skip
        _helpers.append((helper, folder))
    return _helpers[0][0]


@atexit.register
def stop() -> None:
    """End the helper process, and with it the student's."""
    while _helpers:
        helper, folder = _helpers.pop()
        helper.terminate()  # it kills its forks
        with suppress(TimeoutExpired):
            helper.wait(10)
        helper.kill()
        helper.wait()
        folder.cleanup()
