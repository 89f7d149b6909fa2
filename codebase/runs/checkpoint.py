"""Models and training states in files: how they are written, read and checked."""

import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codebase.runs.folder import saved_steps, state_path
from codebase.runs.record import all_runs
from codebase.settings import Settings
from codebase.system.errors import CheckpointError
from codebase.system.files import write_atomically

# What torch.compile and DataParallel put before the names of the parameters they wrap.
WRAPPERS = re.compile(r"\b(_orig_mod|module)\.")


def save(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors and plain values, whole or not at all."""
    # Through memory, because torch.save puts the name of the file it writes to into the file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, with every tensor on the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is cut short, damaged or no checkpoint.
    """
    file, whole = io.BytesIO(path.read_bytes()), False
    try:
        # torch.save writes checksums that torch.load does not look at.
        is_zip = zipfile.is_zipfile(file)
        if is_zip and (damaged := zipfile.ZipFile(file).testzip()):
            raise zipfile.BadZipFile(damaged)
        whole = is_zip
        file.seek(0)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file can raise anything
        reason = "is cut short, damaged or no checkpoint; put a sound copy there or train anew"
        if whole and isinstance(error, pickle.UnpicklingError):
            danger = "which are not loaded because loading them could run code"
            reason = f"holds other objects than tensors, {danger}; save the model's state_dict()"
        raise CheckpointError(f"{path} {reason}") from error


def save_model(model: nn.Module, path: Path) -> None:
    """Write the model's parameters as a plain `state_dict` on the CPU."""
    save({_plain(name): value.cpu() for name, value in model.state_dict().items()}, path)


def load_model(model: nn.Module, path: Path) -> None:
    """Read the model's parameters from a `state_dict` of the same names and shapes.

    It may be of a model that was compiled or wrapped, and the "state_dict" of a larger checkpoint.

    Raises:
        CheckpointError: the file is absent, damaged or of another model.
    """
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(path.parent)))
        hint = f"{steps}; choose one with --iter_max" if steps else "none"
        if others := [str(other) for other in _of_other_data(path)]:
            hint += f"; of another --dataset there is {', '.join(others)}"
        raise CheckpointError(f"there is no checkpoint {path}; steps saved in its folder: {hint}")
    content = load(path)
    own_names = {_plain(name): name for name in model.state_dict()}
    with refused(f"{path} is of other networks or another --z"):
        content = content.get("model_state_dict") or content.get("state_dict") or content
        named = {_plain(name): value for name, value in content.items()}
        model.load_state_dict({own_names.get(name, name): x for name, x in named.items()})
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise CheckpointError(f"{path} is damaged: it holds values that are not finite")


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn what PyTorch raises about a file's content into a CheckpointError that says `what`."""
    try:
        yield
    except Exception as error:  # other content than what was saved can raise anything
        reason = (str(error) or repr(error)).splitlines()[-1].strip()
        raise CheckpointError(f"{what}: {reason}") from error


def read_state(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """The training state in the folder of a run of these settings; None if there is none.

    One that is damaged, lost or of other settings is a CheckpointError.
    """
    path, now = state_path(folder), settings.deciding()
    if not path.exists():
        if saved_steps(folder):
            raise CheckpointError(f"{folder} has models, but no {path.name} to go on from")
        return None
    state = load(path)
    then = Settings().deciding() | state.get("settings", {})  # an older one has fewer settings
    changes = [f"{k} was {then.get(k)} and is {now[k]}" for k in now if then.get(k) != now[k]]
    if changes:
        raise CheckpointError(f"{path} is of other settings: {', '.join(changes)}")
    return state


def _of_other_data(path: Path) -> Iterator[Path]:
    """The models after as many steps of runs that differ in the data set only."""
    own = Settings.named(path.parent.name)
    for folder, other in all_runs():
        same = own and other._replace(dataset=own.dataset).name == own.name
        if same and own != other and (folder / path.name).exists():
            yield folder / path.name


def _plain(name: str) -> str:
    return WRAPPERS.sub("", name)
