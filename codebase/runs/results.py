"""The numbers of a run in its folder: metrics.csv during training, and JSON files."""

import csv
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from codebase.bounds import Bounds, Measured
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.settings import VERSION, Settings
from codebase.system.errors import UserError
from codebase.system.files import write_atomically, write_csv

if TYPE_CHECKING:  # the tables of --compare need no PyTorch, which is slow to import
    import torch

NAMES = ("NELBO", "KL", "REC")
# The names of sets of images in the files: batches since the last "train" row, the assignment's 100
# test images, all test images, and the validation images.
TRAIN, SUBSET, ALL, VALID = "train", "test", "all test", "valid"
ERROR = "standard error"  # the NELBO's, over the images
IWAE, IWAE_OF_ALL = "negative IWAE", "negative IWAE of all test images"
ACTIVE, BITS = "active units", "bits per dimension"


class Row(NamedTuple):
    """The bounds after a step on one of the sets of images, and the seconds of training."""

    step: int
    images: str
    bounds: Bounds
    seconds: float


def sets_of(measured: Measured) -> dict[str, Bounds]:
    """The bounds by the names of their sets of images."""
    sets = {SUBSET: measured.subset, ALL: measured.all}
    return sets | ({VALID: measured.valid} if measured.valid else {})


def read_metrics(folder: RunFolder) -> list[Row]:
    """The rows of a run, none without the file; raises UserError if it is damaged."""
    try:
        with open(folder.metrics, newline="") as file:
            _, *lines = csv.reader(file)
        return [
            Row(int(step), images, Bounds(float(nelbo), float(kl), float(rec)), float(seconds))
            for step, images, nelbo, kl, rec, seconds in lines
        ]
    except FileNotFoundError:
        return []
    except (csv.Error, TypeError, ValueError):
        raise UserError(f"{folder.metrics} is damaged; delete it to continue without it") from None


def write_metrics(folder: RunFolder, rows: Iterable[Row]) -> None:
    """Write the rows of a run atomically."""
    lines = [(row.step, row.images, *row.bounds[:3], row.seconds) for row in rows]
    write_csv(folder.metrics, [("step", "images", *NAMES, "seconds"), *lines])


def write_settings(
    folder: RunFolder, device: "torch.device", step: int, code: Mapping[str, object]
) -> None:
    """Write the settings of the run, and append what trains it from this step on.

    Args:
        code: "files", the SHA-256 sums of the files of the model, and "commit", that of git.
    """
    import torch

    start = {
        "step": step,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "program": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        **code,
    }
    earlier = _read(folder.settings_file).get("starts") if step else None
    content = {"settings": folder.settings._asdict(), "starts": [*(earlier or []), start]}
    _write(folder.settings_file, content)


def write_results(
    folder: RunFolder, step: int, measured: Measured, kl: list[float], iwae: dict[int, float]
) -> None:
    """Write the measurements of a model, in nats per image.

    Importance-weighted bounds that were measured earlier, and are not among these, stay in the
    file.

    Args:
        kl: the KL of each latent dimension, on the assignment's 100 test images.
        iwae: negative importance-weighted bounds on these, by their numbers of samples.
    """
    earlier = _read(folder.results(step))
    rows = [row for row in read_metrics(folder) if (row.step, row.images) == (step, SUBSET)]
    seconds = rows[0].seconds if rows else math.nan  # a model from elsewhere has no metrics.csv
    bounds = dict(earlier.get(IWAE) or {}) | {str(k): bound for k, bound in iwae.items()}
    content: dict[str, object] = {
        images: _finite(dict(zip((*NAMES, ERROR), values, strict=True)))
        for images, values in sets_of(measured).items()
    }
    content |= {
        "KL of each latent dimension": kl,
        IWAE: _finite(bounds),
        "seconds": seconds if math.isfinite(seconds) else None,
    }
    content |= {key: earlier[key] for key in [IWAE_OF_ALL] if key in earlier}
    _write(folder.results(step), content)


def write_iwae_of_all(
    folder: RunFolder, step: int, samples: int, bound: float, error: float, bits: float, active: int
) -> None:
    """Add the importance-weighted bound on all test images to the file of `write_results`.

    Args:
        error: the standard error of the bound over the images.
        bits: the bound in bits per dimension, that is per pixel.
        active: the number of active units.
    """
    values = {"bound": bound, ERROR: error, BITS: bits, ACTIVE: active}
    content = _read(folder.results(step))
    earlier = dict(content.get(IWAE_OF_ALL) or {})
    content[IWAE_OF_ALL] = earlier | {str(samples): _finite(values)}
    _write(folder.results(step), content)


def _finite(values: dict[str, float]) -> dict[str, float]:
    """The values that JSON has, which lacks nan and infinity."""
    return {key: value for key, value in values.items() if math.isfinite(value)}


def read_results(folder: RunFolder, step: int) -> Measured | None:
    """The bounds of a model from the file of its results; None without such a file."""
    content = _read(folder.results(step))

    def read(name: str) -> Bounds:
        """The bounds on a set of images."""
        numbers = {ERROR: math.nan} | content[name]
        return Bounds(*(float(numbers[key]) for key in (*NAMES, ERROR)))

    try:
        valid = read(VALID) if VALID in content else None
        return Measured(read(SUBSET), read(ALL), valid, float(content.get("seconds") or math.nan))
    except (KeyError, TypeError, ValueError):
        return None


def read_weighted(folder: RunFolder, step: int) -> dict[str, float]:
    """The importance-weighted bounds on all test images, by a table's names for them."""
    content = _read(folder.results(step))
    values = {}
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        for samples, measured in content[IWAE_OF_ALL].items():
            values[f"negative IWAE-{samples}, all test images"] = float(measured["bound"])
            values[ACTIVE] = float(measured[ACTIVE])
    return values


def trained_files(folder: RunFolder) -> dict[str, str]:
    """The SHA-256 sums of the files that trained the run last; empty if they are not known."""
    with suppress(IndexError, KeyError, TypeError, ValueError):
        return dict(_read(folder.settings_file)["starts"][-1]["files"])
    return {}


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
