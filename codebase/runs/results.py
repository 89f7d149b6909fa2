"""The numbers of a run in its folder: metrics.csv during training, and JSON files."""

import csv
import json
import math
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch

from codebase.evaluate import Bounds, Measured
from codebase.models.vae import VAE
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.provenance import changed_files, source_files
from codebase.settings import VERSION, Settings
from codebase.system.errors import UserError
from codebase.system.files import write_atomically, write_csv

NAMES = ("NELBO", "KL", "REC")
# The names of sets of images in the files: batches since the last "train" row, the assignment's 100
# test images, and all of them.
TRAIN, SUBSET, ALL = "train", "test", "all test"


class Row(NamedTuple):
    """The bounds after a step on TRAIN, SUBSET or ALL images, and the seconds of training."""

    step: int
    images: str
    bounds: Bounds
    seconds: float


def read_metrics(folder: RunFolder) -> list[Row]:
    """The rows of a run, none without the file; raises UserError if it is damaged."""
    try:
        with open(folder.metrics, newline="") as file:
            _, *lines = csv.reader(file)
        return [
            Row(int(step), images, Bounds(*map(float, bounds)), float(seconds))
            for step, images, *bounds, seconds in lines
        ]
    except FileNotFoundError:
        return []
    except (csv.Error, TypeError, ValueError):
        raise UserError(f"{folder.metrics} is damaged; delete it to continue without it") from None


def write_metrics(folder: RunFolder, rows: Iterable[Row]) -> None:
    """Write the rows of a run atomically."""
    lines = [(row.step, row.images, *row.bounds, row.seconds) for row in rows]
    write_csv(folder.metrics, [("step", "images", *NAMES, "seconds"), *lines])


def write_settings(
    folder: RunFolder, device: torch.device, step: int, files: dict[str, str]
) -> None:
    """Write the settings of the run, and append what trains it from this step on.

    Args:
        files: the SHA-256 sums of the files of the model.
    """
    start = {
        "step": step,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "program": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "files": files,
    }
    earlier = _read(folder.settings_file).get("starts") if step else None
    content = {"settings": folder.settings._asdict(), "starts": [*(earlier or []), start]}
    _write(folder.settings_file, content)


def write_results(
    folder: RunFolder, step: int, measured: Measured, kl: list[float], iwae: dict[int, float]
) -> None:
    """Write all measurements of a model, in nats per image.

    Args:
        kl: the KL of each latent dimension, on the assignment's 100 test images.
        iwae: negative importance-weighted bounds on these, by their numbers of samples; earlier
            ones for other numbers stay in the file.
    """
    path = folder.results(step)
    rows = [row for row in read_metrics(folder) if (row.step, row.images) == (step, SUBSET)]
    earlier = dict(_read(path).get("negative IWAE") or {})
    bounds = earlier | {str(samples): bound for samples, bound in iwae.items()}
    seconds = rows[0].seconds if rows else math.nan  # a model from elsewhere has no metrics.csv
    content = {
        SUBSET: dict(zip(NAMES, measured.subset, strict=True)),
        ALL: dict(zip(NAMES, measured.all, strict=True)),
        "KL of each latent dimension": kl,
        # JSON has no nan and no infinity.
        "negative IWAE": {key: bound for key, bound in bounds.items() if math.isfinite(bound)},
        "seconds": seconds if math.isfinite(seconds) else None,
    }
    _write(path, content)


def read_results(folder: RunFolder, step: int) -> Measured | None:
    """The bounds of a model from the file of its results; None without such a file."""
    content = _read(folder.results(step))
    try:
        sets = [[float(content[images][name]) for name in NAMES] for images in (SUBSET, ALL)]
        seconds = float(content.get("seconds") or math.nan)
        return Measured(Bounds(*sets[0]), Bounds(*sets[1]), seconds)
    except (KeyError, TypeError, ValueError):
        return None


def trained_files(folder: RunFolder) -> dict[str, str]:
    """The SHA-256 sums of the files that trained the run last; empty if they are not known."""
    with suppress(IndexError, KeyError, TypeError, ValueError):
        return dict(_read(folder.settings_file)["starts"][-1]["files"])
    return {}


def warn_of_changed_files(folder: RunFolder, model: VAE) -> None:
    """Print a warning if files of the model have changed since the run was trained."""
    if changed := changed_files(trained_files(folder), source_files(model)):
        print(f"Warning: {changed} changed since this model was trained", file=sys.stderr)


def all_runs() -> Iterator[RunFolder]:
    """The folders of all runs that were trained here, without those that were moved aside."""
    for path in sorted(CHECKPOINTS.glob("model=*/settings.json")):
        with suppress(KeyError, TypeError, ValueError):  # another file of that name
            folder = RunFolder(Settings(**_read(path)["settings"]))
            if folder.settings_file == path:
                yield folder


def _read(path: Path) -> dict:
    """The object in a JSON file; an empty one if the file is absent or holds something else."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _write(path: Path, content: dict) -> None:
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
