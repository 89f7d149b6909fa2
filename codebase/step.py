"""The training step, and all that it changes."""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from codebase.checkpoint import model_name
from codebase.data import binarize
from codebase.models.vae import VAE
from codebase.seeds import (
    ORDER,
    PIXELS,
    WEIGHTS,
    get_global_state,
    seed_for,
    seeded,
    set_global_state,
)
from codebase.signals import leaving_at_once

BATCH_SIZE = 100
WARM_UP = 100  # steps over which the linear schedule rises


class Settings(NamedTuple):
    """All that decides how a run ends, apart from the machine."""

    z: int
    run: int
    iter_max: int
    lr: float
    lr_schedule: str
    dataset: str


class Training(NamedTuple):
    """All that a training step changes."""

    model: VAE
    optimizer: Adam
    schedule: LambdaLR
    pixels: torch.Generator


def new_model(z_dim: int, run: int) -> VAE:
    """A model with the run's own initial weights, on the CPU."""
    with seeded(seed_for(run, WEIGHTS), torch.device("cpu")):
        return VAE(nn="v1", name=model_name(z_dim, run), z_dim=z_dim)


def start(model: VAE, settings: Settings) -> Training:
    """What a new run begins with, on the device of the model."""

    def factor(step: int) -> float:
        """What the learning rate is multiplied with, after `step` steps."""
        if settings.lr_schedule == "constant":
            return 1.0
        return min((step + 1) / WARM_UP, 1 - step / settings.iter_max)

    with leaving_at_once():  # a process's first optimizer imports a lot
        optimizer = Adam(model.parameters(), lr=settings.lr, fused=True)
    pixels = torch.Generator(model.z_prior_m.device).manual_seed(seed_for(settings.run, PIXELS))
    return Training(model, optimizer, LambdaLR(optimizer, factor), pixels)


def batches(n: int, run: int, device: torch.device, step: int = 0) -> Iterator[Tensor]:
    """Row numbers (BATCH_SIZE,) of one batch after the other from `step` on, without end.

    Within an epoch no image comes twice. An epoch's order is a function of (run, epoch) alone.
    """
    first, done = divmod(step, n // BATCH_SIZE)
    for epoch in count(first):
        generator = torch.Generator().manual_seed(seed_for(run, ORDER, epoch))
        order = torch.randperm(n, generator=generator).to(device)
        yield from order[: n - n % BATCH_SIZE].split(BATCH_SIZE)[done:]
        done = 0


def training_steps(training: Training, images: Tensor, run: int, step: int = 0) -> Iterator[Tensor]:
    """Move the model one step down its loss, again and again, without end.

    Nothing here waits for the device.

    Args:
        training: on the device of the images.
        images: (n, 784) uint8, n at least BATCH_SIZE.
        run: the seed of the order of the images.
        step: how many steps have been taken already.

    Yields:
        the bounds on each step's batch, (3,) on the device: NELBO, KL and REC in nats per image.
    """
    model, optimizer, schedule, pixels = training
    for rows in batches(len(images), run, images.device, step):
        optimizer.zero_grad()  # first, so that what follows is computed in the memory it frees
        x = binarize(images.index_select(0, rows), pixels)
        loss, summaries = model.loss(x)
        loss.backward()
        optimizer.step()
        schedule.step()
        yield torch.stack([loss, summaries["gen/kl_z"], summaries["gen/rec"]]).detach()


def state_of(training: Training) -> dict[str, Any]:
    """All that a training step changes, as tensors and plain values."""
    model, optimizer, schedule, pixels = training
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "pixels": pixels.get_state(),
        "noise": get_global_state(pixels.device),
    }


def restore(training: Training, state: dict[str, Any]) -> None:
    """Put the training into a state from `state_of`, or raise some error if it is none."""
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    for parameter, moments in training.optimizer.state.items():
        if not moments["exp_avg"].shape == moments["exp_avg_sq"].shape == parameter.shape:
            raise ValueError("the moments of a parameter have another shape")
    training.schedule.load_state_dict(state["schedule"])
    training.pixels.set_state(state["pixels"])
    set_global_state(state["noise"], training.pixels.device)
    if not all_finite(training.model):
        raise ValueError("parameters are not finite")


def all_finite(model: VAE) -> bool:
    """Whether no parameter is nan or infinite. This waits for the device."""
    return all(parameter.isfinite().all() for parameter in model.parameters())
