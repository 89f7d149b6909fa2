"""What a user can cause and mend. Every message is one sentence: what is wrong and what to do."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

REQUIRED = ("torch", "torchvision", "numpy", "matplotlib", "tqdm", "filelock")
STUDENTS = ("codebase.utils", "codebase.models.vae")  # the files that can be anyone's
TASKS = (*STUDENTS, "codebase.visualize")  # the files in which a hand-out leaves something out


ONLY_MEASURED = 3  # the exit status where the bounds are there, and what comes after them is not


class UserError(Exception):
    """Anything that the command line answers with a sentence instead of a traceback.

    Args:
        status: with which the program exits.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class DownloadError(UserError):
    """The images are not there and cannot be downloaded."""


class CheckpointError(UserError):
    """A checkpoint, or what is needed to resume, cannot be used."""


class BusyError(UserError):
    """Another process is training in the same folder."""


class Interrupted(UserError):
    """A signal asked the program to stop, and what the training has reached is saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message, 128 + signal)


def explain(error: Exception) -> str | None:
    """The sentence for an error that a user can cause, or None where a traceback says more."""
    if isinstance(error, UserError):
        return str(error)
    # Memory that has run out raises many types of errors; their messages share words.
    memory = any(words in str(error) for words in ("allocate", "failed to map"))
    if isinstance(error, MemoryError) or (memory and isinstance(error, RuntimeError | ImportError)):
        return "there is not enough memory free; end other programs, or choose a smaller --z"
    if sentence := lacking(error):
        return sentence
    modules = _modules(error)
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("codebase."):
        return f"{modules[-1]} imports {error.name}, which is not here; delete that line"
    if _of_students(modules):
        return None
    if isinstance(error, ImportError) and str(error.name).split(".")[0] in REQUIRED:
        if isinstance(error, ModuleNotFoundError):
            return f"{error.name} is not installed: pip install -r requirements.txt"
        return f"{error}; to install it anew: pip install --force-reinstall -r requirements.txt"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def lacking(error: Exception) -> str | None:
    """The sentence for what a student's file has not got, or not yet; None for other errors."""
    modules = _modules(error)
    if isinstance(error, NotImplementedError) and modules and modules[-1] in TASKS:
        function = traceback.extract_tb(error.__traceback__)[-1].name
        return f"{function} of {modules[-1]} is not written yet{f': {error}' if str(error) else ''}"
    if isinstance(error, AttributeError) and not _of_students(modules):
        owner = getattr(error.obj, "__name__", type(error.obj).__module__)
        if owner in STUDENTS:
            return f"{owner} has no {error.name}, which this needs"
    return None


@contextmanager
def told(failures: list[str]) -> Iterator[None]:
    """Tell what fails inside the block, in a sentence or by its traceback, and go on after it.

    The failures get it too. What a student's file has not got is told, and is no failure.
    """
    try:
        yield
    except Exception as error:
        if message := explain(error):
            print(f"run_vae.py: {message}", file=sys.stderr)
        else:
            traceback.print_exc()
        if not lacking(error):
            failures.append(message or repr(error))


def _modules(error: Exception) -> list[str]:
    """The modules that the error came through, the one that raised it last."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")) for frame, _ in frames]


def _of_students(modules: list[str]) -> bool:
    """Whether the last module of this project among them is a student's file."""
    ours = [name for name in modules if name.split(".")[0] == "codebase"]
    return bool(ours) and ours[-1] in STUDENTS
