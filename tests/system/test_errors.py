"""Errors that a user can cause are sentences; mistakes in a student's file are tracebacks."""

import signal
import types

import pytest
import torch

from codebase.system import errors
from codebase.system.errors import (
    DownloadError,
    Interrupted,
    UserError,
    explain,
    missing_in_student_file,
    report_errors,
)

# A student's two files.
UTILS = """
def kl_normal(qm, qv, pm, pv):
    raise NotImplementedError("task 2 of the assignment")

def log_normal(x):
    return x.no_such_thing

def log_mean_exp():
    return open("nowhere/file")

def duplicate(x, rep):
    return x.repeat(rep)

def import_nothing():
    import torch.nothing

def import_another_year():
    import codebase.another_year
"""
VAE = """
import torch

class VAE(torch.nn.Module):
    name = "vae"

    def loss(self, x):
        return self.negative_elbo_bound(x)

    def sample_x(self, batch):
        raise NotImplementedError
"""


def module(name, source):
    """The names of a new module, which is not in sys.modules."""
    new = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(new))
    return new


def error_of(code):
    """The error of a line of the project's own code, which uses a student's files."""
    names = {"torch": torch, "utils": module("codebase.utils", UTILS), "errors": errors}
    names["model"] = module("codebase.models.vae", VAE).VAE()
    ours = module("codebase.evaluate", f"def measure({', '.join(names)}):\n    {code}")
    with pytest.raises(Exception) as caught:
        ours.measure(**names)
    return caught.value


@pytest.mark.parametrize(
    ("code", "words"),  # None: a traceback says more
    [
        ("raise errors.UserError('a sentence')", "a sentence"),
        ("raise OSError(28, 'No space left', 'a file')", "a file: No space left"),
        ("raise OSError(28, 'No space left')", "cannot be printed (No space left)"),
        ("raise BrokenPipeError(32, 'Broken pipe')", "cannot be printed (Broken pipe)"),
        ("raise OSError('something')", "something"),
        ("torch.empty(10**14)", "memory"),
        ("bytearray(10**16)", "memory"),
        ("import matplotlib.nothing", "matplotlib.nothing.*pip install -r requirements.txt"),
        ("raise ImportError('libtorch.so', name='torch._C')", "libtorch.so.*--force-reinstall"),
        ("import nothing_of_this_name", None),
        ("raise TypeError", None),
        ("raise ValueError('cannot allocate')", None),
        ("raise NotImplementedError", None),
        ("raise AttributeError('of nobody')", None),
        ("torch.nn.Linear(1, 1).nothing", None),
        # Mistakes in a student's file.
        ("utils.log_normal(0)", None),
        ("utils.log_mean_exp()", None),
        ("utils.duplicate(torch.zeros(2, 2), -1)", None),
        ("utils.duplicate()", None),
        ("utils.import_nothing()", None),
        ("model.loss(0)", None),
        ("utils.import_another_year()", "codebase.utils imports codebase.another_year"),
    ],
)
def test_an_error_that_a_user_can_cause_is_a_sentence_and_another_a_traceback(code, words):
    error = error_of(code)
    assert missing_in_student_file(error) is None
    if words is None:
        assert explain(error) is None
    else:
        words = words.split(".*")
        assert all(word in explain(error) for word in words) and "\n" not in explain(error)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("utils.kl_normal(0, 1, 0, 1)", "kl_normal of codebase.utils is not written yet: task 2"),
        ("model.sample_x(9)", "sample_x of codebase.models.vae is not written yet"),
        ("model.negative_iwae_bound(0, 1)", "codebase.models.vae has no negative_iwae_bound"),
        ("utils.sample_gaussian(0, 1)", "codebase.utils has no sample_gaussian"),
    ],
)
def test_a_function_that_a_students_file_lacks_is_named(code, words):
    error = error_of(code)
    assert missing_in_student_file(error) == explain(error)
    assert words in explain(error)


def test_errors_have_the_exit_status_of_the_command_line():
    assert [UserError("no").status, DownloadError("no").status, UserError("no", 2).status] == [
        1,
        1,
        2,
    ]
    assert Interrupted("saved", signal.SIGTERM).status == 128 + signal.SIGTERM


def test_an_error_in_the_report_is_printed_and_the_report_continues(capsys):
    failures, done = [], []
    full = OSError(28, "No space left on device", "picture.png")
    for error in (None, full, error_of("model.negative_iwae_bound(0, 1)"), TypeError("a"), None):
        with report_errors(failures):
            if error:
                raise error
            done.append(error)
    assert len(done) == 2
    # A function that a solution lacks is not a failure.
    assert failures == ["picture.png: No space left on device", "TypeError('a')"]
    output, printed = capsys.readouterr()
    first, second, third, *_, last = printed.splitlines()
    assert (output, first) == ("", "run_vae.py: picture.png: No space left on device")
    assert second.startswith("run_vae.py: ") and "negative_iwae_bound" in second
    assert third.startswith("Traceback ") and last == "TypeError: a"
    for end in (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or nobody reads any more
        with pytest.raises(end), report_errors(failures):
            raise end
    assert len(failures) == 2 and capsys.readouterr().err == ""
