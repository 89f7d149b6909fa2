"""Checkpoints: where they are, and how they are written and read."""

import io
import re
from pathlib import Path

import torch
from torch import nn

from codebase.files import write_atomically

CHECKPOINTS = Path("checkpoints")


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and says why."""


def model_name(z_dim: int, run: int) -> str:
    """The name of a run, which is also its folder's."""
    return f"model=vae_z={z_dim:02d}_run={run:04d}"


def model_path(folder: Path, step: int) -> Path:
    """The file that holds the model after `step` training steps."""
    return folder / f"model-{step:05d}.pt"


def saved_steps(folder: Path) -> list[int]:
    """The steps whose models are in `folder`, in rising order."""
    names = (re.fullmatch(r"model-(\d{5,})\.pt", path.name) for path in folder.glob("model-*.pt"))
    return sorted(int(name[1]) for name in names if name)


def save_model(model: nn.Module, path: Path) -> None:
    """Write the model's parameters as a plain `state_dict` on the CPU.

    Raises:
        OSError: the file cannot be written; one that was there before is as it was.
    """
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    # Through memory, because torch.save puts the name of the file it writes to into the file.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_model(model: nn.Module, path: Path) -> None:
    """Read the model's parameters from a `state_dict` of the same names and shapes.

    Nothing in the file is executed, and the model is as it was if the file cannot be used.

    Raises:
        CheckpointError: the file is absent, is cut short or no checkpoint, or is of another model.
    """
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(path.parent))) or "none"
        raise CheckpointError(f"there is no checkpoint {path}; steps saved in its folder: {steps}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a file that is no checkpoint provoke
        raise CheckpointError(f"{path} is cut short or is no checkpoint.") from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if not isinstance(state, dict) or state.keys() != expected.keys():
        raise CheckpointError(f"{path} is no checkpoint of this model: its names are others.")
    for name, shape in expected.items():
        found = tuple(state[name].shape) if isinstance(state[name], torch.Tensor) else None
        if found != shape:
            raise CheckpointError(
                f"{path} is of another model, perhaps of another z: {name} has the shape {found} "
                f"and should have {shape}."
            )
    model.load_state_dict(state)
