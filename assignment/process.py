"""Runs a student's files in processes that have a copy of the project without our solution."""

import atexit
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from assignment import ROOT, UTILS, VAE, VISUALIZE
from assignment.inputs import Inputs
from assignment.probe import Record
from assignment.student import AT_IMPORT
from assignment.submission import Submission

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "MPLCONFIGDIR")
LARGEST = 64 << 20  # bytes of an answer
_helpers: list[Popen] = []
_idle: list[Popen] = []  # those that wait for a request


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


def ask(folder: Path, task: str, file: str, inputs: Inputs, seconds: float) -> Record:
    """The answer of a student's function in a folder of `project`.

    Returns:
        a record, in which "failure" is a sentence about a function that has no answer.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    arrays = {key: x.numpy() for key, x in inputs.items()}
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]
    status = _exchange([str(folder), task, file, seconds])
    with suppress(Exception):  # The file may be missing, or have anything in it.
        return _unpack(_read(work / "answer.npz"))
    if hanging := _read(work / "hanging").decode(errors="replace"):
        return {"failure": f"it did not end within {seconds:.0f} seconds{_where(hanging, folder)}"}
    if status is None:
        return {"failure": f"it did not end within {seconds:.0f} seconds"}
    cause = f"by signal {-status}" if status < 0 else f"with status {status}"
    return {"failure": f"its process ended {cause}"}


def _where(hanging: str, folder: Path) -> str:
    """Where a process hangs, by its traceback, innermost line first."""
    lines = re.findall(r'File "(.*)", line (\d+) in (.*)', hanging)
    theirs = [each for each in lines if each[0].startswith(str(folder / "codebase"))]
    if not theirs:
        return ""
    advice = AT_IMPORT if theirs[-1][2] == "<module>" else ""
    return f": it was in line {theirs[0][1]} of {Path(theirs[0][0]).name}{advice}"


def _read(path: Path) -> bytes:
    """The content of a file that the student's process may have written, empty if there is none."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(OSError), open(os.open(path, flags), "rb") as file:
        return file.read(LARGEST)
    return b""


def _unpack(content: bytes) -> Record:
    """The tensors and strings in a file of `numpy.savez`. Raises many kinds of errors."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if sum(each.file_size for each in arrays.zip.infolist()) > LARGEST:
            raise ValueError("The answer is too large.")
        return {
            key: str(array) if array.dtype.kind == "U" else torch.from_numpy(array)
            for key, array in arrays.items()
        }


def _exchange(request: list[Any]) -> int | None:
    """Send a request to a helper process; return the status of its fork, None if it was killed."""
    try:
        helper = _idle.pop()
    except IndexError:
        helper = _start()
    try:
        assert helper.stdin and helper.stdout
        helper.stdin.write(json.dumps(request) + "\n")
        helper.stdin.flush()
        status = json.loads(helper.stdout.readline())
    except (OSError, ValueError):  # The student's process has ended it, or there are no forks.
        return helper.wait()
    _idle.append(helper)
    return status


def _start() -> Popen:
    """Start a helper process."""
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    package = Path(folder.name, "assignment")
    package.mkdir()
    for name in ("__init__.py", "helper.py", "inputs.py", "probe.py", "student.py"):
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
    _helpers.append(helper)
    return helper


@atexit.register
def stop() -> None:
    """End the helper processes, and with them the students'."""
    _idle.clear()
    while _helpers:
        helper = _helpers.pop()
        helper.terminate()  # it kills its forks
        with suppress(TimeoutExpired):
            helper.wait(10)
        helper.kill()
        helper.wait()
