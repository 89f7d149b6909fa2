"""Be the process in which a student's files are asked: they are in `codebase`, a copy of ours."""

import json
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from assignment import UTILS, VAE, VISUALIZE
from assignment.answers import Networks, answers
from codebase.settings import Settings
from codebase.system.errors import UserError, lacking

GIGABYTES, MEGABYTES_OF_A_FILE = 4, 16


def ask(name: str, file: str, run: str) -> dict[str, list[float]]:
    """Ask the function of that name, which is in that file; or what a run has ended with."""
    torch.manual_seed(0)
    nets = Networks(name)
    if name == "train":
        return answers(name, partial(bounds, Path(run)), nets)
    if file == UTILS:
        return answers(name, getattr(import_module("codebase.utils"), name), nets)
    model = import_module("codebase.models.vae").VAE(z_dim=2)
    model.enc = model.dec = nets
    drawing = name == "visualize_samples"
    return answers(name, partial(draw, model) if drawing else getattr(model, name), nets)


def bounds(run: Path) -> tuple[float, ...]:
    """The bounds on the assignment's test images with which a run has ended."""
    if not run.is_dir():
        raise UserError(f"there is no folder {run}")
    settings = Settings.named(run.name)
    if not settings or settings.name != Settings(run=settings.run).name:
        raise UserError(f"{run.name} is not of the assignment's settings")
    if not (rows := import_module("codebase.runs.metrics").bounds_after(run, 20_000)):
        raise UserError(f"{run} has no bounds after 20,000 steps")
    return rows["test"].bounds


def draw(model: Any) -> torch.Tensor:
    """The brightness (height, width) of the picture that visualize_samples writes."""
    from matplotlib.image import imread  # slow, and only needed here

    path = Path("a folder", "two hundred.png")
    path.parent.mkdir(exist_ok=True)
    import_module("codebase.visualize").visualize_samples(model, save_path=str(path))
    if not path.exists():
        raise UserError("no file is written to save_path")
    picture = torch.from_numpy(imread(path).copy())
    path.unlink()
    return picture.view(*picture.shape[:2], -1)[..., :3].mean(-1)


def told(error: BaseException) -> str:
    """The sentence for an error."""
    if isinstance(error, SystemExit):
        return f"it calls exit({'' if error.code is None else error.code})"
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return f"it asks for more than {GIGABYTES} GB of memory"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Exception) and (sentence := lacking(error)):
        return sentence
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename.endswith((UTILS, VAE, VISUALIZE))]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    hint = "; z has two dimensions here: z_dim says how many" if "multiplied" in str(error) else ""
    return f"it raises {type(error).__name__}{f': {error}'[:500]}{place}{hint}"


if __name__ == "__main__":
    with suppress(ImportError):  # Windows has no such limits
        import resource

        for limited, most in (
            (resource.RLIMIT_DATA, GIGABYTES << 30),
            (resource.RLIMIT_FSIZE, MEGABYTES_OF_A_FILE << 20),
        ):
            with suppress(ValueError):  # it is lower already
                resource.setrlimit(limited, (most, most))
    process, file = os.getpid(), Path("answer").resolve()
    try:
        answer: Any = ask(*sys.argv[1:])
    except BaseException as error:
        answer = told(error)
    with suppress(OSError):  # where the folder is gone
        if os.getpid() == process:  # it may have forked
            file.write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
