"""Models and training states in files: writing, reading and checking them."""

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from codebase.runs.folder import RunFolder
from codebase.runs.provenance import changed_files
from codebase.runs.results import Row, write_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.files import write_atomically

# Prefixes that torch.compile and DataParallel put before the names of parameters.
WRAPPERS = re.compile(r"\b(_orig_mod|module)\.")
# Names of the parameters in larger checkpoints.
KEYS = ("model_state_dict", "state_dict", "model", "net")
# Files of other formats begin like this.
FORMATS = {"safetensors": rb".{6}\0\0\{", "NumPy": rb"\x93NUMPY|PK.{20,120}\.npy"}
FORMATS |= {"TorchScript": rb"PK.*/constants\.pkl", "HDF5": rb"\x89HDF"}


def save(content: dict, path: Path) -> None:
    """Write a dictionary of tensors and plain values atomically."""
    # torch.save puts the name of the file it writes to into the file, so it writes to memory.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict:
    """Read a file of `save`, with every tensor on the CPU. Nothing in the file is executed.

    Raises UserError if the file is damaged, or holds more than tensors and plain values.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        if zipfile.is_zipfile(file):
            # torch.load neither verifies the checksums nor minds an entry that is marked a folder.
            archive = zipfile.ZipFile(file)
            if archive.testzip() or any(x.external_attr & 0x10 for x in archive.infolist()):
                raise zipfile.BadZipFile
        file.seek(0)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file can raise anything
        for name, beginning in FORMATS.items():
            if re.match(beginning, file.getvalue(), re.DOTALL):
                advice = "save the state_dict with torch.save instead"
                raise UserError(f"{path} is a file of {name}; {advice}") from error
        reason = "is damaged or holds other objects than tensors, which are not loaded"
        advice = "put an intact copy there (of a model, its state_dict), or train again"
        raise UserError(f"{path} {reason}; {advice}") from error


def plain_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the model's `state_dict` on the CPU, without the names of wrappers."""
    parameters = model.state_dict().items()
    return {WRAPPERS.sub("", name): x.to("cpu", copy=True) for name, x in parameters}


def save_run(folder: RunFolder, rows: list[Row], state: dict, models: dict[int, dict]) -> None:
    """Write the rows, the state and the models of a run; each written model leaves `models`."""
    # Temporary files remain where a process was killed.
    for leftover in folder.path.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    # If the process is killed between two of these writes, resuming writes the rest again.
    write_metrics(folder, rows)
    save(state, folder.state)
    for step, parameters in [*models.items()]:
        save(parameters, path := folder.model(step))
        tqdm.write(f"Saved to {path}")
        del models[step]


def load_model(model: nn.Module, path: Path) -> None:
    """Read the model's parameters from a `state_dict` of the same names and shapes.

    It may come from a compiled or wrapped model, its names may share a prefix, and it may be a part
    of a larger checkpoint. Raises UserError if it is absent, damaged or from other networks.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; {_instead_of(path)}")
    content = load(path)
    own_names = {WRAPPERS.sub("", name): name for name in model.state_dict()}
    with checkpoint_errors(f"{path} does not fit these networks or this --z"):
        content = next((content[key] for key in KEYS if content.get(key)), content)
        values = {WRAPPERS.sub("", name): value for name, value in content.items()}
        first = next(iter(own_names))
        prefix = next((name.removesuffix(first) for name in values if name.endswith(first)), "")
        values = {name.removeprefix(prefix): value for name, value in values.items()}
        model.load_state_dict({own_names.get(name, name): x for name, x in values.items()})
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise UserError(f"{path} is damaged: it holds values that are not finite")


def _instead_of(path: Path) -> str:
    """A sentence about the models that are there, and what to do, if one is missing."""
    folder, hints = path.parent, []
    if saved := sorted(file.name for file in folder.glob("model-*.pt")):
        hints.append(f"models in its folder: {', '.join(saved)}; choose one with --iter_max")
    hints += [f"rename {file.name}" for file in folder.glob(f"{path.stem}.*")]
    pattern = re.sub(r"iter_max=\d+", "iter_max=*", folder.name)
    others = folder.parent.glob(pattern) if pattern != folder.name else ()
    hints += [f"{other.name} is a run of another --iter_max" for other in others if other != folder]
    hints += [
        f"{moved.parent} has it" for moved in folder.parent.glob(f"{folder.name}.*/{path.name}")
    ]
    with suppress(OSError, UserError, LookupError, TypeError, ValueError):
        step = load(folder / "training-state.pt")["training"]["step"]
        if step < int(path.stem.rpartition("-")[2]):
            hints.append(f"--resume 1 continues the run from step {step}")
    return "; ".join(hints) or "train first"


@contextmanager
def checkpoint_errors(reason: str) -> Iterator[None]:
    """Turn errors about the content of a file into a UserError with a reason."""
    try:
        yield
    except Exception as error:  # unexpected content can raise anything
        detail = (str(error) or repr(error)).splitlines()[-1].strip()
        raise UserError(f"{reason}: {detail}") from error


def load_state(folder: RunFolder, files: dict[str, str]) -> dict | None:
    """The training state of the run in a folder; None if the folder has no run.

    Raises UserError if the state is damaged, lost or from other settings, or if the files of the
    model, given by their sums, have changed.
    """
    path = folder.state
    if not path.exists():
        if folder.saved_steps():
            raise UserError(f"{folder.path} has models, but no {path.name} to resume from")
        return None
    state = load(path)
    now = folder.settings.identity()
    with checkpoint_errors(f"{path} is no training state"):
        then = Settings().identity() | dict(state.get("settings", {}))  # older ones have fewer
        changed = changed_files(dict(state.get("files", {})), files)
    changes = [f"{k} was {then.get(k)} and is {now[k]}" for k in now if then.get(k) != now[k]]
    if changes:
        raise UserError(f"{path} is from other settings: {', '.join(changes)}")
    if changed:
        raise UserError(f"{changed} changed since {path} was saved; restore what it was")
    return state
