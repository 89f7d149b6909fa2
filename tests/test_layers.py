"""Who may import whom, what the house takes from the student's two files, and quiet imports."""

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from codebase import utils
from codebase.models.vae import VAE

# From top to bottom: the parts of the house, and which parts each may import, with all that those
# may. A part is a module, or a package with everything in it.
PARTS: dict[str, set[str]] = {
    "run_vae": {"arguments", "visualize", "train", "datasets"},
    "assignment": {"arguments", "visualize"},
    "arguments": {"settings"},
    "visualize": {"pictures", "evaluate", "runs"},
    "pictures": {"evaluate", "runs"},
    "train": {"runs", "evaluate", "data", "models.vae"},
    "runs": {"evaluate", "data", "settings"},
    "evaluate": {"data", "models.vae"},
    "datasets": {"data", "system"},
    "models.vae": {"models.nns", "utils"},
    "data": {"models.nns", "utils", "settings"},
    "models.nns": {"utils"},
    "utils": set(),
    "settings": {"system"},
    "system": set(),
}
# All that pictures may know of runs: where a run's files are, and what is in them.
READING = {
    "codebase.runs.folder": {"run_folder", "model_path", "saved_steps"},
    "codebase.runs.record": {"all_runs"},
    "codebase.runs.metrics": {"read_metrics", "bounds_after", "Row", "TRAIN"},
    "codebase.runs.checkpoint": {"load_model"},
}

# The interface that is given: what every solution of the assignment has, and the house may use.
UTILS = {
    "sample_gaussian": ["m", "v"],
    "gaussian_parameters": ["h", "dim"],
    "kl_normal": ["qm", "qv", "pm", "pv"],
    "log_normal": ["x", "m", "v"],
    "log_bernoulli_with_logits": ["x", "logits"],
    "log_mean_exp": ["x", "dim"],
    "duplicate": ["x", "rep"],
}
METHODS = {
    "negative_elbo_bound": ["x"],
    "negative_iwae_bound": ["x", "iw"],
    "loss": ["x"],
    "sample_z": ["batch"],
    "sample_x": ["batch"],
    "sample_x_given": ["z"],
    "sample_sigmoid": ["batch"],
    "compute_sigmoid_given": ["z"],
}
VALUES = {"name", "z_dim", "enc", "dec", "z_prior_m", "z_prior_v", "z_prior"}
ARGUMENTS = {"VAE": ["nn", "name", "z_dim"], **UTILS, **METHODS}
SUMMARIES = {"train/loss", "gen/elbo", "gen/kl_z", "gen/rec"}
OF_MODULES = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
ATTRIBUTES = {
    "model": {*METHODS} | VALUES | OF_MODULES,
    "enc": {"encode"} | OF_MODULES,
    "dec": {"decode"} | OF_MODULES,
}

FILES = [path for top in ("assignment", "codebase") for path in (ROOT / top).rglob("*.py")]
FILES.append(ROOT / "run_vae.py")
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text(encoding="utf-8")
    )
    for path in FILES
}
TOP = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}  # this project's names
# Folders, of which Python makes modules, and what these import.
FOLDERS = {"codebase": [], "codebase.models": ["codebase.utils"]}
HOUSE = {module: tree for module, tree in TREES.items() if module not in FOLDERS}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    name = module.removeprefix("codebase.") + "."
    found = [part for part in PARTS if name.startswith(f"{part}.")]
    assert found, f"{module} has no place in the table of this test and in DESIGN.md"
    return found[0]


def below(part: str) -> set[str]:
    """All parts that a part may import."""
    return PARTS[part].union(*map(below, PARTS[part]))


def imports(module: str, tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Each import of this project, anywhere in a module.

    Gives the module that is imported, the name that is taken from it (or none), and the name that
    this has here.
    """
    package = module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [(alias.name, "", alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                taken = (inner, "") if inner in TREES else (source, alias.name)
                found.append((*taken, alias.asname or alias.name))
        yield from (each for each in found if each[0].split(".")[0] in TOP)


def test_the_table_goes_from_top_to_bottom_and_has_every_module():
    order = list(PARTS)
    for part, lower in PARTS.items():
        assert all(order.index(part) < order.index(other) for other in lower)
    assert {part_of(module) for module in HOUSE} == {*PARTS}
    for module, imported in FOLDERS.items():
        _, *rest = TREES[module].body  # after the docstring
        assert [name for name, *_ in imports(module, TREES[module])] == imported
        assert len(rest) == len(imported)  # there is nothing else


def test_nobody_imports_what_stands_above():
    for module, tree in HOUSE.items():
        part = part_of(module)
        for name, *_ in imports(module, tree):
            assert part_of(name) in {part} | below(part), f"{module} must not import {name}"


def test_pictures_only_read_what_runs_have_written():
    for module, tree in HOUSE.items():
        if part_of(module) in ("pictures", "visualize"):
            for name, taken, _ in imports(module, tree):
                if part_of(name) == "runs":
                    assert taken in READING.get(name, ()), f"{module} takes {name} {taken}"


@pytest.mark.parametrize(
    ("module", "line", "name"),
    [
        ("codebase.evaluate", "import codebase.train", "codebase.train"),
        ("codebase.evaluate", "from codebase import train as loop", "codebase.train"),
        ("codebase.evaluate", "from codebase.train import Training", "codebase.train"),
        ("codebase.evaluate", "from . import train", "codebase.train"),
        ("codebase.runs.folder", "from ..train import train", "codebase.train"),
        ("codebase.runs", "from .. import train", "codebase.train"),
        ("codebase.runs.folder", "def f():\n    import codebase.train", "codebase.train"),
        ("codebase.data", "if TYPE_CHECKING:\n    import run_vae", "run_vae"),
        ("codebase.system.files", "from codebase.settings import Settings", "codebase.settings"),
    ],
)
def test_an_import_is_found_wherever_and_however_it_is_written(module, line, name):
    assert [found for found, *_ in imports(module, ast.parse(line))] == [name]
    assert part_of(name) not in {part_of(module)} | below(part_of(module))


def taken_from(student: str, module: str, tree: ast.AST) -> list[str]:
    """What a module takes of a student's file: names that it imports, or attributes of the file.

    Where the file is handed on as a whole, so that nobody sees what becomes of it, "*" is given.
    """
    names = []
    for name, taken, here in imports(module, tree):
        if name == student and (taken or "." in here):
            names.append(taken or "*")
        elif name == student:
            nodes = [*ast.walk(tree)]
            values = [x for x in nodes if isinstance(x, ast.Attribute) and is_name(x.value, here)]
            names += [node.attr for node in values]
            names += ["*"] * (sum(is_name(node, here) for node in nodes) - len(values))
    return names


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_only_the_public_names_of_the_students_files_are_imported():
    for module, tree in HOUSE.items():
        assert {*taken_from("codebase.utils", module, tree)} <= {*UTILS}, module
        assert {*taken_from("codebase.models.vae", module, tree)} <= {"VAE"}, module


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("from codebase.utils import duplicate, _half as half", ["duplicate", "_half"]),
        ("def f():\n    from .utils import EPSILON", ["EPSILON"]),
        ("from codebase import utils\nutils._half(1)", ["_half"]),
        ("import codebase.utils as u\nu.EPSILON + u.kl_normal(1)", ["EPSILON", "kl_normal"]),
        ("import codebase.utils\ncodebase.utils.kl_normal(1)", ["*"]),
        ("from codebase import utils\ngetattr(utils, name)", ["*"]),
        ("from codebase.utils import *", ["*"]),
    ],
)
def test_a_name_is_found_however_it_is_taken(lines, names):
    assert taken_from("codebase.utils", "codebase.other", ast.parse(lines)) == names


def of_models(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each attribute that is taken from a model, its encoder or its decoder: of what, and its name.

    A model is what is named so, `model` or `anything.model`, what is annotated as a VAE, and what
    is copied from a model or newly made.
    """
    models = {"model"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            models |= {node.arg} if ast.unparse(node.annotation).strip("'") == "VAE" else set()
        elif isinstance(node, ast.Assign):
            made = ast.unparse(node.value)
            if re.match(r"VAE\(|new_model\(|(copy\.)?deepcopy\(model\)", made):
                models |= {x.id for x in node.targets if isinstance(x, ast.Name)}

    def kind(node: ast.AST) -> str:
        if isinstance(node, ast.Name) and node.id in models:
            return "model"
        if isinstance(node, ast.Attribute) and node.attr == "model":
            return "model"
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            return node.attr if kind(node.value) == "model" else ""
        return ""

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and kind(node.value):
            yield kind(node.value), node.attr
        elif isinstance(node, ast.Call) and is_name(node.func, "getattr") and kind(node.args[0]):
            yield kind(node.args[0]), ast.unparse(node.args[1]).strip("'")


def test_only_the_public_attributes_of_a_model_are_used():
    used = set()
    for module, tree in HOUSE.items():
        if module != "codebase.models.vae":
            for of, name in of_models(tree):
                assert name in ATTRIBUTES[of], f"{module} takes {name} of {of}"
                used.add((of, name))
    # And they are seen: what training, evaluation and pictures cannot do without is among them.
    assert {("model", name) for name in ("loss", "sample_x", "negative_iwae_bound")} < used
    assert {("model", "state_dict"), ("model", "z_dim"), ("enc", "encode")} < used


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("self.model._prior_of(z)", ("model", "_prior_of")),
        ("training.model.prior", ("model", "prior")),
        ("def f(old: VAE):\n    return old.scale", ("model", "scale")),
        ("def f(old: 'VAE'):\n    return old.scale", ("model", "scale")),
        ("last = copy.deepcopy(model)\nlast.scale", ("model", "scale")),
        ("fresh = VAE(z_dim=3)\nfresh.scale", ("model", "scale")),
        ("fresh = new_model(settings).to(device)\nfresh.scale", ("model", "scale")),
        ("getattr(model, 'scale', 1)", ("model", "scale")),
        ("model.enc.net", ("enc", "net")),
    ],
)
def test_what_only_our_solution_has_would_be_seen(lines, found):
    assert found in {*of_models(ast.parse(lines))}
    assert found[1] not in ATTRIBUTES[found[0]]


def test_arguments_and_summaries_have_the_names_that_every_solution_has():
    for tree in HOUSE.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func).split(".")[-1]
                given = {word.arg for word in node.keywords}
                assert function not in ARGUMENTS or given <= {*ARGUMENTS[function]}, function
            elif isinstance(node, ast.Subscript) and is_name(node.value, "summaries"):
                assert ast.literal_eval(node.slice) in SUMMARIES


def test_our_own_solution_has_all_that_is_promised_and_nothing_else():
    def arguments(function):
        return [name for name in inspect.signature(function).parameters if name != "self"]

    promised = {"VAE": VAE} | {name: getattr(utils, name) for name in UTILS}
    promised |= {name: getattr(VAE, name) for name in METHODS}
    assert {name: arguments(function) for name, function in promised.items()} == ARGUMENTS
    model = VAE(z_dim=3)
    assert {*model.loss(torch.zeros(2, 784))[1]} == SUMMARIES
    public = {name for name in dir(model) if not name.startswith("_")}
    assert public - OF_MODULES == {*METHODS} | VALUES
    functions = {name for name, value in vars(utils).items() if inspect.isfunction(value)}
    assert functions == {*UTILS}


# Imports modules, and prints what that has changed in the process.
WATCHING = """
import os, signal, sys

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    streams = [sys.stdin, sys.stdout, sys.stderr]
    ways = [(stream.errors, stream.line_buffering, stream.encoding) for stream in streams]
    return dict(os.environ), handlers, streams, ways, os.getcwd(), sys.excepthook, sys.argv

libraries, modules = (argument.split() for argument in sys.argv[1:])
for name in libraries:
    __import__(name)
before = state()
for name in modules:
    __import__(name)
print([i for i, (old, new) in enumerate(zip(before, state())) if old != new])
print(*(name for name in ("torch", "numpy", "matplotlib", "torchvision") if name in sys.modules))
"""


def watch(folder: Path, libraries: str, modules: str) -> list[str]:
    """What the imports have changed, and which libraries are imported then."""
    process = subprocess.run(
        [sys.executable, "-c", WATCHING, libraries, modules],
        # Not that of this process, in which the modules are imported already.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert process.stderr == ""
    return process.stdout.splitlines()


def test_the_command_line_answers_before_what_is_slow_is_imported(tmp_path):
    assert watch(tmp_path, "", "run_vae") == ["[]", ""]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_changes_nothing_in_the_process(tmp_path):
    changed, libraries = watch(tmp_path, "torch numpy tqdm filelock", " ".join(TREES))
    assert changed == "[]"
    assert libraries == "torch numpy"  # pictures and downloads are rare
    assert list(tmp_path.iterdir()) == []
