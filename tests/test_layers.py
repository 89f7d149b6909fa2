"""The order of imports, the use of the student's two files, and imports without side effects."""

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

# The parts of the project in DESIGN.md's order, and the parts that each may import, with all that
# those may import. A part is a module, or a package with everything in it.
PARTS: dict[str, set[str]] = {
    "run_vae": {"arguments", "report", "train", "datasets"},
    "report": {"visualize"},
    "assignment": {"arguments", "compute", "datasets", "visualize"},
    "arguments": {"settings"},
    "visualize": {"pictures"},
    "pictures": {"runs"},
    "train": {"runs", "compute"},
    "runs": {"evaluate", "settings"},
    "evaluate": {"bounds", "data", "models.vae"},
    "datasets": {"data", "datasets.sources"},
    "data": {"system"},
    "models.vae": {"models.nns"},
    "models.nns": {"utils"},
    "compute": {"system"},
    "utils": set(),
    "settings": {"datasets.sources"},
    "bounds": set(),
    "datasets.sources": set(),
    "system": set(),
}
# All that pictures may import from runs, and the methods of a folder that they may not call.
READING = {
    "codebase.runs.folder": {"RunFolder"},
    "codebase.runs.results": {"read_metrics", "Row", "TRAIN", "SUBSET", "ALL", "VALID"},
}
WRITING = {"lock", "move_aside"}

# The given interface: every solution of the assignment has it, and the project uses nothing else.
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
MODULE_NAMES = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
ATTRIBUTES = {
    "model": {*METHODS} | VALUES | MODULE_NAMES,
    "enc": {"encode"} | MODULE_NAMES,
    "dec": {"decode"} | MODULE_NAMES,
}

FILES = [path for top in ("assignment", "codebase") for path in (ROOT / top).rglob("*.py")]
FILES.append(ROOT / "run_vae.py")
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text(encoding="utf-8")
    )
    for path in FILES
}
TOP = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}  # names of the project
# Folders that belong to no part, and the imports of their __init__.py.
FOLDERS = {"codebase": [], "codebase.models": ["codebase.utils"]}
MODULES = {module: tree for module, tree in TREES.items() if module not in FOLDERS}


def part_of(module: str) -> str:
    """The part that a module belongs to."""
    name = module.removeprefix("codebase.") + "."
    found = [part for part in PARTS if name.startswith(f"{part}.")]
    assert found, f"{module} is missing in the table PARTS and in DESIGN.md"
    return max(found, key=len)


def below(part: str) -> set[str]:
    """All parts that a part may import."""
    return PARTS[part].union(*map(below, PARTS[part]))


def imports(module: str, tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """All imports of the project's own modules, anywhere in a module.

    Yields:
        the imported module, the name that is imported from it (or ""), and its local name.
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
                origin = (inner, "") if inner in TREES else (source, alias.name)
                found.append((*origin, alias.asname or alias.name))
        yield from (each for each in found if each[0].split(".")[0] in TOP)


def test_every_module_has_a_part_and_the_parts_are_in_order():
    order = list(PARTS)
    for part, lower in PARTS.items():
        assert all(order.index(part) < order.index(other) for other in lower)
    assert {part_of(module) for module in MODULES} == {*PARTS}
    for module, imported in FOLDERS.items():
        _, *lines = TREES[module].body  # after the docstring
        assert [name for name, *_ in imports(module, TREES[module])] == imported
        assert len(lines) == len(imported)  # there is nothing else


def test_no_module_imports_a_higher_part():
    for module, tree in MODULES.items():
        part = part_of(module)
        for name, *_ in imports(module, tree):
            assert part_of(name) in {part} | below(part), f"{module} must not import {name}"


def test_pictures_only_read_the_folders_of_runs():
    for module, tree in MODULES.items():
        if part_of(module) in ("pictures", "visualize"):
            for source, name, _ in imports(module, tree):
                if part_of(source) == "runs":
                    assert name in READING.get(source, ()), f"{module} imports {source} {name}"
            attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not attributes & WRITING, module


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
def test_a_forbidden_import_is_found_in_any_form(module, line, name):
    assert [found for found, *_ in imports(module, ast.parse(line))] == [name]
    assert part_of(name) not in {part_of(module)} | below(part_of(module))


def names_used(student: str, module: str, tree: ast.AST) -> list[str]:
    """The names of a student's file that a module imports, or uses as attributes of the file.

    Where the module passes the file on as a whole, the name is "*".
    """
    names = []
    for source, name, local in imports(module, tree):
        if source == student and (name or "." in local):
            names.append(name or "*")
        elif source == student:
            nodes = [*ast.walk(tree)]
            values = [x for x in nodes if isinstance(x, ast.Attribute) and is_name(x.value, local)]
            names += [node.attr for node in values]
            names += ["*"] * (sum(is_name(node, local) for node in nodes) - len(values))
    return names


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_only_the_given_names_of_the_students_files_are_used():
    for module, tree in MODULES.items():
        if module == "assignment.mistakes":  # changes our own solution, which a hand-out lacks
            continue
        assert {*names_used("codebase.utils", module, tree)} <= {*UTILS}, module
        assert {*names_used("codebase.models.vae", module, tree)} <= {"VAE"}, module


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
def test_a_used_name_is_found_in_any_form(lines, names):
    assert names_used("codebase.utils", "codebase.other", ast.parse(lines)) == names


def model_attributes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """All attributes of models, encoders and decoders that a module uses: the owner and the name.

    A model is any variable or attribute named `model`, an argument annotated as a VAE, and a
    variable that holds a copy of a model or a new one. A name that is not constant is "*".
    """
    models = {"model"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            models |= {node.arg} if ast.unparse(node.annotation).strip("'") == "VAE" else set()
        elif isinstance(node, ast.Assign):
            value = ast.unparse(node.value)
            if re.match(r"VAE\(|new_model\(|(copy\.)?deepcopy\(model\)", value):
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
            name = node.args[1]
            yield kind(node.args[0]), name.value if isinstance(name, ast.Constant) else "*"


def test_only_the_given_attributes_of_a_model_are_used():
    used = set()
    for module, tree in MODULES.items():
        if module != "codebase.models.vae":
            for owner, name in model_attributes(tree):
                of_task = (module, name) == ("assignment.student", "*")  # the name is a task's
                assert name in ATTRIBUTES[owner] or of_task, f"{module} uses {name} of {owner}"
                used.add((owner, name))
    # The search finds the attributes that training, evaluation and pictures need.
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
        ("getattr(model, name)", ("model", "*")),
        ("model.enc.net", ("enc", "net")),
    ],
)
def test_an_attribute_that_other_solutions_lack_is_found(lines, found):
    assert found in {*model_attributes(ast.parse(lines))}
    assert found[1] not in ATTRIBUTES[found[0]]


def test_keyword_arguments_and_summaries_have_the_given_names():
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func).split(".")[-1]
                keywords = {keyword.arg for keyword in node.keywords}
                assert function not in ARGUMENTS or keywords <= {*ARGUMENTS[function]}, function
            elif isinstance(node, ast.Subscript) and is_name(node.value, "summaries"):
                assert ast.literal_eval(node.slice) in SUMMARIES


def test_our_own_solution_has_the_given_interface_and_nothing_else():
    def arguments(function):
        return [name for name in inspect.signature(function).parameters if name != "self"]

    given = {"VAE": VAE} | {name: getattr(utils, name) for name in UTILS}
    given |= {name: getattr(VAE, name) for name in METHODS}
    assert {name: arguments(function) for name, function in given.items()} == ARGUMENTS
    model = VAE(z_dim=3)
    assert {*model.loss(torch.zeros(2, 784))[1]} == SUMMARIES
    public = {name for name in dir(model) if not name.startswith("_")}
    assert public - MODULE_NAMES == {*METHODS} | VALUES
    functions = {name for name, value in vars(utils).items() if inspect.isfunction(value)}
    assert functions == {*UTILS}


# Imports modules, and prints which parts of the process's state changed, and the slow libraries.
PROGRAM = """
import os, signal, sys

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    streams = [sys.stdin, sys.stdout, sys.stderr]
    modes = [(stream.errors, stream.line_buffering, stream.encoding) for stream in streams]
    return dict(os.environ), handlers, streams, modes, os.getcwd(), sys.excepthook, sys.argv

libraries, modules = (argument.split() for argument in sys.argv[1:])
for name in libraries:
    __import__(name)
before = state()
for name in modules:
    __import__(name)
print([i for i, (old, new) in enumerate(zip(before, state())) if old != new])
print(*(name for name in ("torch", "numpy", "matplotlib", "torchvision") if name in sys.modules))
"""


def changes(folder: Path, libraries: str, modules: str) -> list[str]:
    """Import modules after libraries in a new process, and return the lines of PROGRAM."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, libraries, modules],
        # Importing the modules may have changed this process's environment.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert process.stderr == ""
    return process.stdout.splitlines()


def test_the_command_line_answers_before_slow_imports(tmp_path):
    assert changes(tmp_path, "", "run_vae") == ["[]", ""]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_changes_nothing_in_the_process(tmp_path):
    changed, libraries = changes(tmp_path, "torch numpy tqdm filelock", " ".join(TREES))
    assert changed == "[]"
    assert "torchvision" not in libraries  # slow, and only downloads need it
    assert list(tmp_path.iterdir()) == []
