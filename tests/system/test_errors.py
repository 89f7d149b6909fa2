"""What a user can cause is a sentence; what a student's file causes leads there."""

import signal
import traceback
import types
from importlib import import_module

import pytest
import torch

from codebase.system.errors import (
    BusyError,
    CheckpointError,
    DownloadError,
    Interrupted,
    UserError,
    explain,
    lacking,
    told,
)

# Files as a student writes them. What they need at the top is said by `top`.
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
    """A module of that name, which is not among those of Python."""
    made = types.ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


def student(top=""):
    """The student's two files: the functions of the one, and a model of the other."""
    files = module("codebase.utils", UTILS.format(top=top)), module("codebase.models.vae", VAE)
    return files[0], files[1].VAE()


def house(code, **names):
    """The error of a line in the project's own code."""
    ours = module("codebase.evaluate", f"def measure({', '.join(names)}):\n    {code}")
    with pytest.raises(Exception) as caught:
        ours.measure(**names)
    return caught.value


def raised(error):
    """The error, as it is where it is caught."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_sentence_of_our_own_is_told_as_it_is():
    for kind in (UserError, DownloadError, CheckpointError, BusyError):
        error = raised(kind("a sentence"))
        assert (explain(error), error.status) == ("a sentence", 1)
    assert UserError("a wrong argument", 2).status == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_as_the_shell_says_that_a_signal_does(number):
    error = Interrupted("saved", number)
    assert (explain(error), error.status) == ("saved", 128 + number)


def test_memory_that_runs_out_is_one_sentence():
    for allocate in (lambda: torch.empty(10**14), lambda: bytearray(10**16)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert explain(caught.value).startswith("there is not enough memory free; ")
    mapping = ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch")
    assert explain(raised(mapping)).startswith("there is not enough memory free; ")


def test_a_library_that_lacks_is_named_with_what_installs_it():
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("matplotlib.no_such_part")
    sentence = "matplotlib.no_such_part is not installed: pip install -r requirements.txt"
    assert explain(caught.value) == sentence
    broken = ImportError("libtorch.so: no such file", name="torch._C")
    assert explain(raised(broken)) == (
        "libtorch.so: no such file; "
        "to install it anew: pip install --force-reinstall -r requirements.txt"
    )


def test_advice_about_installing_is_for_what_can_be_installed():
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("nothing_of_this_name")
    assert explain(caught.value) is None


def test_the_file_and_the_systems_own_words_are_told():
    for error, sentence in [
        (OSError(28, "No space left on device", "a file"), "a file: No space left on device"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (FileNotFoundError(2, "No such file", "there"), "there: No such file"),
    ]:
        assert explain(raised(error)) == explain(house("raise error", error=error)) == sentence


@pytest.mark.parametrize(
    "error", [TypeError("a"), ValueError("cannot allocate"), RuntimeError("a"), KeyError(1)]
)
def test_a_mistake_in_the_program_is_a_traceback(error):
    assert explain(raised(error)) is None
    assert explain(house("raise error", error=error)) is None


@pytest.mark.parametrize(
    "code",
    [
        "utils.log_normal(0, 0, 1)",  # an attribute that is not there
        "utils.log_mean_exp(0, 0)",  # a file that is not there
        "utils.duplicate(torch.zeros(2, 2), -1)",  # an error that PyTorch raises for the student
        "utils.duplicate(torch.zeros(2, 2))",  # it is called wrongly, or takes too much
        "model.loss(0)",  # of what the student's own file lacks
    ],
)
def test_a_mistake_in_a_students_file_is_a_traceback(code):
    utils, model = student()
    error = house(code, utils=utils, model=model, torch=torch)
    assert explain(error) is None
    assert lacking(error) is None


@pytest.mark.parametrize("top", ["import nothing", "import torch.nothing", "from torch import no"])
def test_a_wrong_import_in_a_students_file_is_a_traceback(top):
    with pytest.raises(ImportError) as caught:
        student(top)
    assert explain(caught.value) is None
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert "codebase.utils.py" in [frame.filename for frame in frames]


def test_a_part_of_another_years_code_is_named_with_the_file_that_wants_it():
    with pytest.raises(ModuleNotFoundError) as caught:
        student("import math\nimport codebase.another_year")
    sentence = "codebase.utils imports codebase.another_year, which is not here; delete that line"
    assert explain(caught.value) == sentence


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
            "codebase.models.vae has no negative_iwae_bound, which this needs",
        ),
        (
            "utils.sample_gaussian(0, 1)",
            "codebase.utils has no sample_gaussian, which this needs",
        ),
    ],
)
def test_what_a_students_file_has_not_got_is_named(code, sentence):
    utils, model = student()
    error = house(code, utils=utils, model=model)
    assert lacking(error) == explain(error) == sentence


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
def test_what_others_have_not_got_is_a_mistake(code):
    error = house(code, torch=torch)
    assert lacking(error) is None
    assert explain(error) is None


def test_what_fails_is_told_and_the_next_thing_is_done(capsys):
    _, model = student()
    failures, done = [], []
    for step in ("fine", "fails", "lacks", "fine"):
        with told(failures):
            if step == "fails":
                raise OSError(28, "No space left on device", "picture.png")
            if step == "lacks":
                raise house("model.negative_iwae_bound(0, 1)", model=model)
            done.append(step)
    assert done == ["fine", "fine"]
    # What a solution has not got is no failure of the program: it is only said.
    assert failures == ["picture.png: No space left on device"]
    assert capsys.readouterr() == (
        "",
        "run_vae.py: picture.png: No space left on device\n"
        "run_vae.py: codebase.models.vae has no negative_iwae_bound, which this needs\n",
    )


def test_a_mistake_is_told_by_its_traceback_and_the_next_thing_is_done(capsys):
    failures = []
    with told(failures):
        raise TypeError("a mistake")
    assert failures == ["TypeError('a mistake')"]
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback ") and errors.endswith("TypeError: a mistake\n")


def test_ctrl_c_is_not_kept_back(capsys):
    failures = []
    with pytest.raises(KeyboardInterrupt), told(failures):
        raise KeyboardInterrupt
    assert (failures, capsys.readouterr().err) == ([], "")
