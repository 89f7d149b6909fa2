"""The order of imports, the use of the student's two files, and imports without side effects."""

import ast
import inspect
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from codebase import utils
from codebase.models.vae import VAE

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
ARGUMENTS = {"VAE": ["nn", "name", "z_dim"], **UTILS, **METHODS}
VALUES = {"name", "z_dim", "enc", "dec", "z_prior_m", "z_prior_v", "z_prior"}
SUMMARIES = {"train/loss", "gen/elbo", "gen/kl_z", "gen/rec"}
MODULE_NAMES = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
GIVEN = {
    "utils": {*UTILS},
    "model": {*METHODS} | VALUES | MODULE_NAMES,
    "enc": {"encode"} | MODULE_NAMES,
    "dec": {"decode"} | MODULE_NAMES,
    "summaries": SUMMARIES,
}

FILES = [path for top in ("assignment", "codebase") for path in (ROOT / top).rglob("*.py")]
FILES.append(ROOT / "run_vae.py")
OF_THEIR_OWN = ("vae.py", "mistakes.py")  # The first may have more names; the second changes ours.


def names_used(tree: ast.AST) -> dict[str, set[str]]:
    """The names that a module uses of the student's files, by their owners.

    A variable named `model`, or annotated as a VAE, is a model.
    """
    used = defaultdict(set)
    models = {"model"}
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name, annotation=ast.Name(id="VAE")):
                models.add(name)
            case ast.ImportFrom(module="codebase.utils", names=names):
                used["utils"] |= {alias.name for alias in names}
            case ast.ImportFrom(module="codebase.models.vae", names=names):
                used["vae"] |= {alias.name for alias in names}
            case ast.Import(names=names):
                # The whole module under another name would hide what is used of it.
                used["vae"] |= {alias.name for alias in names if alias.name.endswith(".vae")}
                used["utils"] |= {alias.name for alias in names if alias.name.endswith("e.utils")}
            case ast.Subscript(value=ast.Name(id="summaries"), slice=ast.Constant(value=key)):
                used["summaries"].add(key)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                used["model" if owner in models else owner].add(name)
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=owner), name, *_]):
                named = name.value if isinstance(name, ast.Constant) else "*"
                used["model" if owner in models else owner].add(named)
    return used


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_only_the_given_interface_of_the_students_files_is_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = names_used(tree)
    assert used["vae"] <= {"VAE"}
    in_check = path.parent.name == "assignment"
    for owner, given in GIVEN.items():
        if path.name not in OF_THEIR_OWN and not (in_check and owner in ("enc", "dec")):
            # The names of tasks, which the check asks for, are in the interface.
            assert used[owner] <= given | ({"*"} if in_check else set()), owner
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func).split(".")[-1]
            keywords = {keyword.arg for keyword in node.keywords}
            assert function not in ARGUMENTS or keywords <= {*ARGUMENTS[function]}, function


def test_our_own_solution_has_the_given_interface_and_nothing_else():
    def arguments(function):
        return [name for name in inspect.signature(function).parameters if name != "self"]

    functions = {name: f for name, f in vars(utils).items() if inspect.isfunction(f)}
    assert {name: arguments(function) for name, function in functions.items()} == UTILS
    model = VAE(z_dim=3)
    public = {name for name in dir(model) if not name.startswith("_")} - MODULE_NAMES
    assert public == {*METHODS} | VALUES
    assert {name: arguments(getattr(VAE, name)) for name in METHODS} == METHODS
    assert arguments(VAE) == ARGUMENTS["VAE"]
    assert {*model.loss(torch.zeros(2, 784))[1]} == SUMMARIES


def test_imports_go_down_the_layers_only():
    """pyproject.toml has the layers."""
    linter = pytest.importorskip("importlinter.cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert linter.lint_imports(no_cache=True) == 0


# Imports modules after libraries, and prints which parts of the process's state changed, and the
# slow libraries.
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
    assert list(folder.iterdir()) == []
    return process.stdout.splitlines()


def test_the_command_line_answers_before_slow_imports(tmp_path):
    assert changes(tmp_path, "", "run_vae") == ["[]", ""]


@pytest.mark.slow
def test_importing_changes_nothing_in_the_process(tmp_path):
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
    modules = " ".join(name.removesuffix(".__init__") for name in names)
    changed, libraries = changes(tmp_path, "torch numpy tqdm filelock", modules)
    assert changed == "[]"
    assert "torchvision" not in libraries  # slow, and only downloads need it
