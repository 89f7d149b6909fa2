"""Errors that a user can cause are sentences; mistakes in a student's file are tracebacks."""

import types

import pytest
import torch

from codebase.system import errors
from codebase.system.errors import explain, missing_in_student_file, report_errors


def module(name, source):
    """A new module, which is not in sys.modules."""
    new = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(new))
    return new


def error_of(line):
    """The error of a line of our own code, or of a line of a student's file that ours calls."""
    _, begins_theirs, theirs = line.partition("student: ")
    utils = module("codebase.utils", f"def work(x):\n    {theirs or 'pass'}")
    vae = module("codebase.models.vae", "import torch\nclass VAE(torch.nn.Module): name = 'vae'")
    names = {"torch": torch, "errors": errors, "utils": utils, "model": vae.VAE()}
    ours = "utils.work(model)" if begins_theirs else line
    evaluate = module("codebase.evaluate", f"def measure({', '.join(names)}):\n    {ours}")
    with pytest.raises(Exception) as caught:
        evaluate.measure(**names)
    return caught.value


# None: a traceback says more.
FAULTS = [
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
    ("raise ValueError('cannot allocate')", None),
    ("raise NotImplementedError", None),
    ("raise AttributeError('of nobody')", None),
    ("torch.nn.Linear(1, 1).nothing", None),
    ("student: x.no_such_thing", None),
    ("student: open('nowhere/file')", None),
    ("student: raise RuntimeError('sizes')", None),
    ("student: import torch.nothing", None),
    ("student: import codebase.last_year", "codebase.utils imports codebase.last_year"),
]
MISSING = [
    ("student: raise NotImplementedError('task 2')", "utils is not written yet: task 2"),
    ("student: raise NotImplementedError", "work of codebase.utils is not written yet"),
    ("model.negative_iwae_bound(0, 1)", "codebase.models.vae has no negative_iwae_bound"),
    ("utils.sample_gaussian(0, 1)", "codebase.utils has no sample_gaussian"),
]


@pytest.mark.parametrize(("line", "words"), [*FAULTS, *MISSING])
def test_an_error_that_a_user_can_cause_is_a_sentence_and_another_a_traceback(line, words):
    """What a student's file lacks is known as such."""
    error = error_of(line)
    sentence = explain(error)
    assert missing_in_student_file(error) == (sentence if (line, words) in MISSING else None)
    if words is None:
        assert sentence is None
    else:
        assert all(word in sentence for word in words.split(".*")) and "\n" not in sentence


def test_an_error_in_the_report_is_printed_and_the_report_continues(capsys):
    failures = []
    full = OSError(28, "No space left on device", "picture.png")
    for error in (full, error_of("model.negative_iwae_bound(0, 1)"), TypeError("a")):
        with report_errors(failures):
            raise error
    # A function that a solution lacks is a failure only where it was asked for.
    assert failures == ["picture.png: No space left on device", "TypeError('a')"]
    with report_errors(failures, optional=False):
        raise error_of("model.negative_iwae_bound(0, 1)")
    assert "negative_iwae_bound" in failures.pop()
    output, printed = capsys.readouterr()
    first, second, third, *_, last, _ = printed.splitlines()
    assert (output, first) == ("", "run_vae.py: picture.png: No space left on device")
    assert second.startswith("run_vae.py: ") and "negative_iwae_bound" in second
    assert third.startswith("Traceback ") and last == "TypeError: a"
    for end in (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or nobody reads any more
        with pytest.raises(end), report_errors(failures):
            raise end
    assert len(failures) == 2 and capsys.readouterr().err == ""
