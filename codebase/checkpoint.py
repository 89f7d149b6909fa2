"""Checkpoints: where they are, and how they are written and read."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codebase.errors import CheckpointError
from codebase.files import write_atomically

CHECKPOINTS = Path("checkpoints")


def model_name(z_dim: int, run: int) -> str:
    """The name of a run, which is also its folder's."""
    return f"model=vae_z={z_dim:02d}_run={run:04d}"


def model_path(folder: Path, step: int) -> Path:
    """The file that holds the model after `step` training steps, and nothing else."""
    return folder / f"model-{step:05d}.pt"


def state_path(folder: Path) -> Path:
    """The file that holds all that is needed to go on with the run."""
    return folder / "training-state.pt"


def earlier_state_path(folder: Path) -> Path:
    """The file that keeps an earlier run's state until the new run has a model of its own."""
    return folder / "earlier-training-state.pt"


def saved_steps(folder: Path) -> list[int]:
    """The steps whose models are in `folder`, in rising order."""
    names = (re.fullmatch(r"model-(\d{5,})\.pt", path.name) for path in folder.glob("model-*.pt"))
    return sorted(int(name[1]) for name in names if name)


def save(content: dict[str, Any], path: Path) -> None:
    """Write a dictionary of tensors and plain values, whole or not at all.

    Raises:
        OSError: the file cannot be written; one that was there before is as it was.
    """
    # Through memory, because torch.save puts the name of the file it writes to into the file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, with every tensor on the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is cut short, damaged or no checkpoint.
        OSError: it cannot be read.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        # torch.save writes checksums that torch.load does not look at.
        if zipfile.is_zipfile(file) and (damaged := zipfile.ZipFile(file).testzip()):
            raise zipfile.BadZipFile(damaged)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a file that is no checkpoint provoke
        raise CheckpointError(
            f"{path} is cut short, damaged or no checkpoint; delete it and train again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    return content


def save_model(model: nn.Module, path: Path) -> None:
    """Write the model's parameters as a plain `state_dict` on the CPU.

    Raises:
        OSError: the file cannot be written; one that was there before is as it was.
    """
    save({name: value.cpu() for name, value in model.state_dict().items()}, path)


def load_model(model: nn.Module, path: Path) -> None:
    """Read the model's parameters from a `state_dict` of the same names, shapes and types.

    Raises:
        CheckpointError: the file is absent, cannot be used or is of another model; the model is
            as it was.
    """
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(path.parent)))
        hint = f"{steps}; choose one with --iter_max" if steps else "none"
        raise CheckpointError(f"there is no checkpoint {path}; steps saved in its folder: {hint}")
    state = load(path)
    expected = model.state_dict()
    if state.keys() != expected.keys():
        odd = ", ".join(sorted(map(str, state.keys() ^ expected.keys()))[:3])
        raise CheckpointError(f"{path} is of another model: it lacks or adds {odd}")
    for name, value in expected.items():
        if (kind := _kind(state[name])) != _kind(value):
            raise CheckpointError(
                f"{path} is of another model, perhaps of another --z: "
                f"{name} should be {_kind(value)} and is {kind}"
            )
        if not state[name].isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name} holds values that are not finite")
    model.load_state_dict(state)


def _kind(value: Any) -> str:
    """What a value must have in common with the one it replaces."""
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta:
        return f"{value.dtype} of {tuple(value.shape)}".removeprefix("torch.")
    return type(value).__name__
