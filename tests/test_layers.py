"""The order of imports, and the use of the student's two files."""

import ast
from collections.abc import Iterator

import pytest
import torch
from conftest import ROOT

# The given interface: every solution of the assignment has it, and the program uses nothing else.
UTILS = {
    *("sample_gaussian", "gaussian_parameters", "kl_normal", "log_normal", "duplicate"),
    *("log_bernoulli_with_logits", "log_mean_exp"),
}
METHODS = {
    *("negative_elbo_bound", "negative_iwae_bound", "loss", "sample_z", "sample_x"),
    *("sample_x_given", "sample_sigmoid", "compute_sigmoid_given"),
}
SUMMARIES = {"train/loss", "gen/elbo", "gen/kl_z", "gen/rec"}
MODULE = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
MODEL = {"name", "z_dim", "enc", "dec", "z_prior_m", "z_prior_v", "z_prior", *METHODS}
GIVEN = {
    **{"utils": UTILS, "vae": {"VAE"}, "model": MODEL | MODULE, "summaries": SUMMARIES},
    **{"enc": {"encode"} | MODULE, "dec": {"decode"} | MODULE},
}
FILES = [ROOT / "run_vae.py", *sorted((ROOT / "codebase").rglob("*.py"))]


def names_used(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names after a dot, imported names and keys in brackets, each after the name of its owner."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                yield owner, name
            case ast.ImportFrom(module="codebase.utils" | "codebase.models.vae" as module):
                yield from ((module.split(".")[-1], alias.name) for alias in node.names)
            case ast.Subscript(value=ast.Name(id=owner), slice=ast.Constant(value=str(key))):
                yield owner, key


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_only_the_given_interface_of_the_students_files_is_used(path):
    for owner, name in names_used(ast.parse(path.read_text(encoding="utf-8"))):
        # Our own vae.py may have more names.
        assert path.name == "vae.py" or name in GIVEN.get(owner, {name}), (owner, name)


def test_imports_go_down_the_layers_only():
    linter = pytest.importorskip("importlinter.cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert linter.lint_imports(no_cache=True) == 0
