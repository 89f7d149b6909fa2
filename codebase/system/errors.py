"""Errors that a user can cause, each answered with one sentence: what is wrong and what to do."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

REQUIRED = ("torch", "torchvision", "numpy", "matplotlib", "tqdm", "filelock")
STUDENTS = ("codebase.utils", "codebase.models.vae")  # the two files that a student replaces
TASKS = (*STUDENTS, "codebase.visualize")  # the files in which a hand-out leaves functions empty
ONLY_MEASURED = 3  # exit status: the bounds are there, but a later part of the report failed


class UserError(Exception):
    """An error that the command line answers with a sentence and an exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status
        if "--" in message and sys.version_info >= (3, 11):  # shown below a traceback only
            settings = "--iter_max 1000 is Settings(iter_max=1000), --resume 1 is resume=True"
            self.add_note(f"In Python, options are settings or arguments: {settings}.")


class DownloadError(UserError):
    """The images are absent and cannot be downloaded."""


class Interrupted(UserError):
    """A signal stopped the training, and its progress is saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message, 128 + signal)


def explain(error: Exception) -> str | None:
    """The sentence for an error that a user can cause, or None where a traceback says more."""
    if isinstance(error, UserError):
        return str(error)
    # PyTorch reports exhausted memory as a RuntimeError that it "can't allocate".
    memory = isinstance(error, RuntimeError) and "allocate" in str(error)
    if memory or isinstance(error, MemoryError):
        return "there is not enough free memory; close other programs or reduce --batch_size"
    if sentence := missing_in_student_file(error):
        return sentence
    modules = _modules(error)
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("codebase."):
        return f"{modules[-1]} imports {error.name}, which does not exist here; delete that line"
    if _in_student_file(modules):
        return None
    if isinstance(error, ImportError) and str(error.name).split(".")[0] in REQUIRED:
        option = "" if isinstance(error, ModuleNotFoundError) else " --force-reinstall"
        return f"{error}; to install it: pip install{option} -r requirements.txt"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
        return f"the output cannot be printed ({error.strerror}); what was saved is kept"
    return str(error) if isinstance(error, OSError) else None


def missing_in_student_file(error: Exception) -> str | None:
    """The sentence for a function that a student's file does not have yet; else None."""
    modules = _modules(error)
    if isinstance(error, NotImplementedError) and modules and modules[-1] in TASKS:
        function = traceback.extract_tb(error.__traceback__)[-1].name
        reason = f": {error}" if str(error) else ""
        return f"{function} of {modules[-1]} is not written yet{reason}"
    if isinstance(error, AttributeError) and not _in_student_file(modules):
        owner = getattr(error.obj, "__name__", type(error.obj).__module__)
        if owner in STUDENTS:
            return f"{owner} has no {error.name}, which is needed here"
    return None


@contextmanager
def report_errors(failures: list[str], optional: bool = True) -> Iterator[None]:
    """Print an error inside the block, as a sentence or a traceback, and continue after the block.

    Appends the message to `failures`, unless the work is optional and a student's function for it
    is merely missing.
    """
    try:
        yield
    except BrokenPipeError:  # nothing can be printed any more
        raise
    except Exception as error:
        message = explain(error)
        if message:
            print(f"run_vae.py: {message}", file=sys.stderr)
        else:
            traceback.print_exc()
        if not (optional and missing_in_student_file(error)):
            failures.append(message or repr(error))


def _modules(error: Exception) -> list[str]:
    """The names of the modules in the error's traceback, innermost last."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__")) for frame, _ in frames]


def _in_student_file(modules: list[str]) -> bool:
    """Whether the last module of this project among them is a student's file."""
    ours = [name for name in modules if name.split(".")[0] == "codebase"]
    return bool(ours) and ours[-1] in STUDENTS
