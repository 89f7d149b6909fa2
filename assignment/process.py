"""Runs a student's files in processes that have a copy of the project without our solution."""

import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_all_start_methods, get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch

from assignment import FILES, ROOT, VAE, Task
from assignment.guard import LARGEST, make_environment_bare
from assignment.probe import Record
from assignment.student import AT_IMPORT, PLOTTING, answer
from assignment.submission import Submission

# A server imports PyTorch once and forks for each request. Windows has no forks.
CAN_FORK = "forkserver" in get_all_start_methods()
CONTEXT: Any = get_context("forkserver" if CAN_FORK else "spawn")
PRELOADED = ["assignment.student"]
_lock = Lock()  # Starting a process also reads the states of others: one thread does it at a time.


@contextmanager
def project(submission: Submission, with_pictures: bool = False) -> Iterator[Path]:
    """A folder with the project and the student's files in the place of ours."""
    CONTEXT.set_forkserver_preload(PRELOADED + PLOTTING * with_pictures)  # for a server that starts
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        ignored = shutil.ignore_patterns("__pycache__", "explorer.*")
        shutil.copytree(ROOT / "codebase", folder / "codebase", ignore=ignored)
        missing = {x: f"raise ImportError('{Path(x).name} was not sent')\n" for x in FILES}
        for file, text in (missing | submission.files).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


def answer_of(folder: Path, task: Task, seconds: float, seed: int) -> Record:
    """The answer of a student's function, in a folder of `project`, to the inputs of a seed.

    If it has none, "failure" is a sentence about it.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    process = start(folder, task.name, task.file or VAE, seed, seconds)
    try:
        # The process ends itself earlier, unless its code prevents that.
        wait([process.sentinel], seconds + 10)
    finally:
        status = end(process)
    with suppress(Exception):  # The file may be missing, or have anything in it.
        return _unpack(_read(work / "answer.npz"))
    hanging = _read(work / "hanging").decode(errors="replace")
    if hanging or status is None:
        return {"failure": f"it did not end within {seconds:.0f} seconds{_where(hanging, folder)}"}
    if status == 255:  # multiprocessing says this of all processes of a server that was ended.
        raise ChildProcessError("the server of students' processes has ended")
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


def start(*arguments: Any) -> BaseProcess:
    """Start a process for a student's function."""
    process = CONTEXT.Process(target=answer, args=arguments)
    with _lock, bare():
        process.start()
    return process


@contextmanager
def bare() -> Iterator[None]:
    """Give new processes a bare environment, and no Ctrl-C."""
    variables, main = dict(os.environ), sys.modules["__main__"]
    if CAN_FORK:
        resource_tracker.ensure_running()  # It would unblock the signal later.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    make_environment_bare()
    # multiprocessing would import the command's main module in the new process.
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.clear()
        os.environ.update(variables)
        if CAN_FORK:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end(process: BaseProcess) -> int | None:
    """End a process and those of its group; return its status, None if it was still running."""
    with _lock:
        status = process.exitcode
        assert process.pid
        with suppress(OSError, AttributeError):  # The group has ended, or Windows has none.
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    return status
