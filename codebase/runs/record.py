"""What a run was and what its models gave, in its folder, for programs to read."""

import json
import math
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from codebase.runs.folder import CHECKPOINTS
from codebase.settings import VERSION, Settings
from codebase.system.files import write_atomically


def settings_path(folder: Path) -> Path:
    """The file that says what the run in that folder is, and where and when it was trained."""
    return folder / "settings.json"


def results_path(folder: Path, step: int) -> Path:
    """The file of all that was measured of the model after `step` training steps."""
    return folder / f"results-{step:05d}.json"


def write_settings(folder: Path, settings: Settings, device: torch.device, step: int) -> None:
    """Say in the folder what the run is, and add where it is trained from this step on."""
    start = {
        "step": step,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "program": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
    }
    starts = _read(settings_path(folder)).get("starts", []) if step else []
    _write(settings_path(folder), {"settings": settings._asdict(), "starts": [*starts, start]})


def settings_of(folder: Path) -> Settings | None:
    """The settings of the run in that folder, by its file or by its name; None of no run."""
    named = Settings.named(folder.name)
    try:
        settings = Settings(**_read(settings_path(folder))["settings"])
        return settings if settings.name == folder.name else named
    except (KeyError, TypeError, ValueError):
        return named


def all_runs() -> Iterator[tuple[Path, Settings]]:
    """The folders of all runs, without those that were moved aside, and their settings."""
    for folder in sorted(CHECKPOINTS.glob("model=*")):
        if settings := settings_of(folder):
            yield folder, settings


def write_results(
    folder: Path, step: int, bounds: Mapping[str, Any], kl: list[float], iwae: dict[int, float]
) -> None:
    """Write all that was measured of a model, in nats per image.

    Args:
        bounds: NELBO, KL and REC, by the images that they are of.
        kl: of each latent dimension, on the assignment's images.
        iwae: negative importance-weighted bounds there, by their numbers of samples. Those that
            were measured before stay, unless the model has become another.
    """
    results: dict[str, Any] = {
        images: {"NELBO": x.nelbo, "KL": x.kl, "REC": x.rec} for images, x in bounds.items()
    }
    results["KL of each latent dimension"] = kl
    before = _read(results_path(folder, step))
    nelbo = before.get("test", {}).get("NELBO", math.nan)
    same = math.isclose(nelbo, results["test"]["NELBO"], rel_tol=1e-4)
    earlier = before.get("negative IWAE", {}) if same else {}
    results["negative IWAE"] = earlier | {str(samples): value for samples, value in iwae.items()}
    _write(results_path(folder, step), results)


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no such file, or another content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
