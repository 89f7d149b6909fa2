"""Errors that a user can cause are sentences; mistakes in a student's file are tracebacks."""

import signal
import traceback
import types
from importlib import import_module

import pytest
import torch

from codebase.system.errors import (
    DownloadError,
    Interrupted,
    UserError,
    explain,
    missing_in_student_file,
    report_errors,
)

# A student's two files; `top` is for more imports.
UTILS = """
{top}
def kl_normal(qm, qv, pm, pv):
    raise NotImplementedError("task 2 of the assignment")

def log_normal(x, m, v):
    return x.no_such_thing

def log_mean_exp(x, dim):
    return open("nowhere/file")

def duplicate(x, rep):
    return x.repeat(rep)
"""
VAE = """
import torch

class VAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.name = "vae"

    def loss(self, x):
        return self.negative_elbo_bound(x)

    def sample_x(self, batch):
        raise NotImplementedError
"""


def module(name, source):
    """A new module of that name, which is not in sys.modules."""
    new = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(new))
    return new


def student(top=""):
    """The student's utils, and a model of the student's class."""
    files = module("codebase.utils", UTILS.format(top=top)), module("codebase.models.vae", VAE)
    return files[0], files[1].VAE()


def error_of(code, **names):
    """The error of a line of the project's own code."""
    ours = module("codebase.evaluate", f"def measure({', '.join(names)}):\n    {code}")
    with pytest.raises(Exception) as caught:
        ours.measure(**names)
    return caught.value


def raised(error):
    """The error after it was raised, so that it has a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_our_own_errors_keep_their_sentence_and_status():
    for kind in (UserError, DownloadError):
        error = raised(kind("a sentence"))
        assert (explain(error), error.status) == ("a sentence", 1)
    assert UserError("a wrong argument", 2).status == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_status_of_an_interruption_is_128_plus_the_signal(number):
    error = Interrupted("saved", number)
    assert (explain(error), error.status) == ("saved", 128 + number)


def test_exhausted_memory_is_a_sentence():
    for allocate in (lambda: torch.empty(10**14), lambda: bytearray(10**16)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert "memory" in explain(caught.value)


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("matplotlib.no_such_part")
    sentence = explain(caught.value)
    assert "matplotlib.no_such_part" in sentence
    assert sentence.endswith("pip install -r requirements.txt")
    broken = explain(raised(ImportError("libtorch.so: no such file", name="torch._C")))
    assert broken.startswith("libtorch.so: no such file; ")
    assert broken.endswith("pip install --force-reinstall -r requirements.txt")


def test_only_required_libraries_have_advice_about_installing():
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("nothing_of_this_name")
    assert explain(caught.value) is None


def test_an_error_of_the_system_is_a_sentence_with_the_file():
    for error, sentence in [
        (OSError(28, "No space left on device", "a file"), "a file: No space left on device"),
        (FileNotFoundError(2, "No such file", "there"), "there: No such file"),
    ]:
        assert explain(raised(error)) == explain(error_of("raise error", error=error)) == sentence
    assert "No space left" in explain(raised(OSError(28, "No space left on device")))


@pytest.mark.parametrize(
    "error", [TypeError("a"), ValueError("cannot allocate"), RuntimeError("a"), KeyError(1)]
)
def test_a_mistake_in_the_program_is_a_traceback(error):
    assert explain(raised(error)) is None
    assert explain(error_of("raise error", error=error)) is None


@pytest.mark.parametrize(
    "code",
    [
        "utils.log_normal(0, 0, 1)",  # an attribute that is not there
        "utils.log_mean_exp(0, 0)",  # a file that is not there
        "utils.duplicate(torch.zeros(2, 2), -1)",  # an error that PyTorch raises
        "utils.duplicate(torch.zeros(2, 2))",  # other arguments than in the given interface
        "model.loss(0)",  # the student's own file uses a method that is missing
    ],
)
def test_a_mistake_in_a_students_file_is_a_traceback(code):
    utils, model = student()
    error = error_of(code, utils=utils, model=model, torch=torch)
    assert explain(error) is None
    assert missing_in_student_file(error) is None


@pytest.mark.parametrize("top", ["import nothing", "import torch.nothing", "from torch import no"])
def test_a_wrong_import_in_a_students_file_is_a_traceback(top):
    with pytest.raises(ImportError) as caught:
        student(top)
    assert explain(caught.value) is None
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert "codebase.utils.py" in [frame.filename for frame in frames]


def test_an_import_from_another_years_code_is_a_sentence():
    with pytest.raises(ModuleNotFoundError) as caught:
        student("import math\nimport codebase.another_year")
    assert explain(caught.value).startswith("codebase.utils imports codebase.another_year")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "utils.kl_normal(0, 1, 0, 1)",
            "kl_normal of codebase.utils is not written yet: task 2 of the assignment",
        ),
        ("model.sample_x(9)", "sample_x of codebase.models.vae is not written yet"),
        (
            "model.negative_iwae_bound(0, 1)",
            "codebase.models.vae has no negative_iwae_bound, which is needed here",
        ),
        (
            "utils.sample_gaussian(0, 1)",
            "codebase.utils has no sample_gaussian, which is needed here",
        ),
    ],
)
def test_a_function_that_a_students_file_lacks_is_named(code, sentence):
    utils, model = student()
    error = error_of(code, utils=utils, model=model)
    assert missing_in_student_file(error) == explain(error) == sentence


@pytest.mark.parametrize(
    "code",
    [
        "object().nothing",
        "torch.nothing",
        "torch.nn.Linear(1, 1).nothing",
        "raise NotImplementedError('of our own')",
        "raise AttributeError('of nobody')",
    ],
)
def test_a_missing_attribute_of_another_file_is_a_mistake(code):
    error = error_of(code, torch=torch)
    assert missing_in_student_file(error) is None
    assert explain(error) is None


def test_an_error_in_the_report_is_printed_and_the_report_continues(capsys):
    _, model = student()
    failures, done = [], []
    for step in ("fine", "fails", "lacks", "fine"):
        with report_errors(failures):
            if step == "fails":
                raise OSError(28, "No space left on device", "picture.png")
            if step == "lacks":
                raise error_of("model.negative_iwae_bound(0, 1)", model=model)
            done.append(step)
    assert done == ["fine", "fine"]
    # A function that a solution lacks is not a failure.
    assert failures == ["picture.png: No space left on device"]
    assert capsys.readouterr() == (
        "",
        "run_vae.py: picture.png: No space left on device\n"
        "run_vae.py: codebase.models.vae has no negative_iwae_bound, which is needed here\n",
    )


def test_a_mistake_in_the_report_is_a_traceback_and_the_report_continues(capsys):
    failures = []
    with report_errors(failures):
        raise TypeError("a mistake")
    assert failures == ["TypeError('a mistake')"]
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback ") and errors.endswith("TypeError: a mistake\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_ctrl_c_and_a_closed_output_end_the_report(capsys, error):
    failures = []
    with pytest.raises(error), report_errors(failures):
        raise error
    assert (failures, capsys.readouterr().err) == ([], "")
