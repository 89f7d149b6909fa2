"""Provenance: the code of a run's model, and the numbers that its modules count."""

import hashlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from torch import nn

from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder
from codebase.runs.results import trained_files


def source_files(model: VAE) -> dict[str, str]:
    """The SHA-256 sums of the files of the model and its networks, by the names of the modules."""
    kinds = (type(model), type(model.enc), type(model.dec))
    sums = {}
    for name in sorted({"codebase.utils", *(kind.__module__ for kind in kinds)}):
        with suppress(AttributeError, OSError, TypeError):  # a notebook's cell is no file
            content = Path(sys.modules[name].__file__ or "").read_bytes()
            sums[name] = hashlib.sha256(content).hexdigest()
    return sums


def git_commit() -> str | None:
    """The commit that is checked out where this file is; None without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return finished.stdout.strip()
    return None


def changed_files(before: dict[str, str], now: dict[str, str]) -> str:
    """The names of the files that differ, as text; none if the earlier sums are not known."""
    return ", ".join(name for name in now if before and before.get(name) != now[name])


def warn_of_changed_files(folder: RunFolder, model: VAE) -> None:
    """Print a warning if files of the model have changed since the run was trained."""
    if changed := changed_files(trained_files(folder), source_files(model)):
        print(f"Warning: {changed} changed since this model was trained", file=sys.stderr)


def plain_numbers(model: nn.Module) -> dict[str, dict[str, float]]:
    """Numbers among the attributes of the modules, such as a count of steps for a warm-up."""
    common = vars(nn.Module())
    return {
        name: {
            key: value
            for key, value in vars(module).items()
            if key not in common and isinstance(value, int | float)
        }
        for name, module in model.named_modules()
    }


def restore_numbers(model: nn.Module, numbers: dict[str, dict[str, float]]) -> None:
    """Give the modules the numbers that `plain_numbers` returned; raise ValueError for others."""
    modules = dict(model.named_modules())
    for name, values in numbers.items():
        for key, value in values.items():
            if not isinstance(value, int | float) or callable(getattr(modules[name], key, None)):
                raise ValueError(f"{key} is not a number of the module {name!r}")
            setattr(modules[name], key, value)
