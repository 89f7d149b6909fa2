"""A run's folder and its files: where they are, how they are written, and how they are checked."""

import io
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout  # comes with torch, which depends on it
from torch import Tensor, nn

from codebase.errors import BusyError, CheckpointError
from codebase.files import write_atomically
from codebase.settings import Settings

CHECKPOINTS = Path("checkpoints")
METRICS = ("step", "images", "NELBO", "KL", "REC")  # the columns of metrics.csv


def run_folder(settings: Settings) -> Path:
    """The folder that holds all files of the run, and nothing of any other."""
    return CHECKPOINTS / settings.name


def model_path(folder: Path, step: int) -> Path:
    """The file that holds the model after `step` training steps, and nothing else."""
    return folder / f"model-{step:05d}.pt"


def state_path(folder: Path) -> Path:
    """The file that holds all that is needed to go on with the run."""
    return folder / "training-state.pt"


def metrics_path(folder: Path) -> Path:
    """The file that holds the bounds along the way."""
    return folder / "metrics.csv"


def saved_steps(folder: Path) -> list[int]:
    """The steps whose models are in `folder`, in rising order."""
    names = (re.fullmatch(r"model-(\d{5,})\.pt", path.name) for path in folder.glob("model-*.pt"))
    return sorted(int(name[1]) for name in names if name)


def training_seconds(folder: Path, step: int) -> float | None:
    """How long the training took, if the run's state is there and is of that step."""
    try:
        state = load(state_path(folder))
    except (OSError, CheckpointError):
        return None
    return state.get("seconds") if state.get("step") == step else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is absent, and keep other processes from training in it.

    The lock is beside the folder, which may be moved. The operating system drops the lock of a
    process that dies, and what such a process left half written is removed.

    Raises:
        BusyError: another process holds the folder; the message names it.
        OSError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield
    except Timeout:
        raise BusyError(
            f"another process is training in {folder}; wait for it, or choose another --run"
        ) from None


def is_used(folder: Path) -> bool:
    """Whether a run has saved something in the folder."""
    return bool(saved_steps(folder)) or state_path(folder).exists()


def move_aside(folder: Path) -> Path | None:
    """Rename the folder of an earlier run to the first free of NAME.1, NAME.2, ...

    Returns:
        where it is now, or None if nothing was saved in it, so that it can be used again.
    """
    if not is_used(folder):
        return None
    places = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
    place = next(place for place in places if not os.path.lexists(place))
    folder.rename(place)
    folder.mkdir()
    return place


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
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(
            f"{path} is cut short, damaged or no checkpoint; put a sound copy there or train anew"
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
        CheckpointError: the file is absent, damaged or of another model, which is as it was.
    """
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(path.parent)))
        hint = f"{steps}; choose one with --iter_max" if steps else "none"
        raise CheckpointError(f"there is no checkpoint {path}; steps saved in its folder: {hint}")
    load_parameters(model, load(path), path)


def load_parameters(model: nn.Module, parameters: dict[str, Any], path: Path) -> None:
    """Give the model the parameters that were read from `path`, all of them or none.

    Raises:
        CheckpointError: they are of another model, or one is not finite.
    """
    if difference := next(differences(parameters, model.state_dict()), None):
        raise CheckpointError(f"{path} is of other networks or another --z: {difference}")
    if not all(value.isfinite().all() for value in parameters.values()):
        raise CheckpointError(f"{path} is damaged: it holds values that are not finite")
    model.load_state_dict(parameters)


def differences(value: Any, expected: Any, name: str = "its content") -> Iterator[str]:
    """Each way in which the keys, types or shapes of a value are not the expected ones."""
    if isinstance(value, dict) and isinstance(expected, dict):
        for key in expected | value:
            yield from differences(value.get(key), expected.get(key), str(key))
    elif _kind(value) != _kind(expected):
        yield f"{name} should be {_kind(expected)} and is {_kind(value)}"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta:
        return f"{value.dtype} of {tuple(value.shape)}".removeprefix("torch.")
    return "absent" if value is None else type(value).__name__
