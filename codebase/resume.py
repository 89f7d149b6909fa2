"""What an interrupted run goes on from: its progress, and all that its training steps change."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from codebase import checkpoint
from codebase.errors import CheckpointError
from codebase.step import Settings, Training, restore, state_of


class Progress(NamedTuple):
    """How far a run has come, apart from the training itself."""

    step: int
    seconds: float
    stale: list[int]  # steps of an earlier run whose models are still in the folder
    metrics: list[tuple[int, str, float, float, float]]  # the rows of metrics.csv
    window: Tensor  # the sum of the bounds since the last row


def save_state(path: Path, progress: Progress, settings: Settings, training: Training) -> None:
    """Write a training state, whole or not at all.

    Raises:
        OSError: it cannot be written; one that was there before is as it was.
    """
    content = progress._asdict() | state_of(training)
    checkpoint.save(content | {"settings": _identity(settings, training)}, path)


def load_state(path: Path, settings: Settings, training: Training) -> Progress:
    """Read a training state and put the training into it.

    Raises:
        CheckpointError: it is damaged or one of other settings.
        OSError: it cannot be read.
    """
    state = checkpoint.load(path)
    try:
        then, now = state["settings"], _identity(settings, training)
        if settings.lr_schedule == "constant":
            now["iter_max"] = then["iter_max"]  # only a goal, then
        differences = [
            f"{key} was {then[key]} and is {now[key]}" for key in now if then[key] != now[key]
        ]
        if not differences:
            restore(training, state)
            # Built anew and formatted once, so that what is odd in it shows here.
            progress = Progress(
                step=int(state["step"]),
                seconds=float(state["seconds"]),
                stale=[s for s in state["stale"] if checkpoint.model_path(path.parent, s).exists()],
                metrics=[
                    (int(s), str(i), float(n), float(k), float(r))
                    for s, i, n, k, r in state["metrics"]
                ],
                window=state["window"] + torch.zeros(3),
            )
    except Exception as error:  # whatever a foreign or damaged state provokes
        raise CheckpointError(
            f"{path} is damaged or no training state; delete it to start anew"
        ) from error
    if differences:
        raise CheckpointError(
            f"{path} is of other settings: {', '.join(differences)}; without --resume 1 a run "
            "starts anew"
        )
    return progress


def _identity(settings: Settings, training: Training) -> dict[str, object]:
    """What must be the same for a run to be resumed."""
    return settings._asdict() | {"device": training.pixels.device.type}
