"""The training loop."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from codebase.checkpoint import model_path, save_model, saved_steps
from codebase.data import binarize
from codebase.models.vae import VAE
from codebase.seeds import NOISE, ORDER, PIXELS, WEIGHTS, seed_for, seeded

BATCH_SIZE = 100
LEARNING_RATE = 1e-3


class DeviceError(Exception):
    """This machine has no such device; the message lists those it has."""


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" a GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count())), "cpu"]
    if name != "auto" and name not in devices:
        raise DeviceError(f"this machine has no device {name!r}, only {', '.join(devices)}")
    return torch.device(devices[0] if name == "auto" else name)


def new_model(z_dim: int, name: str, run: int) -> VAE:
    """A model with the run's own initial weights, on the CPU."""
    with seeded(seed_for(run, WEIGHTS), torch.device("cpu")):
        return VAE(nn="v1", name=name, z_dim=z_dim)


def batches(n: int, run: int, device: torch.device) -> Iterator[Tensor]:
    """Row numbers (BATCH_SIZE,) of one batch after the other, without end.

    Within an epoch no image comes twice. An epoch's order is a function of (run, epoch) alone.
    """
    for epoch in count():
        generator = torch.Generator().manual_seed(seed_for(run, ORDER, epoch))
        order = torch.randperm(n, generator=generator).to(device)
        yield from order[: n - n % BATCH_SIZE].split(BATCH_SIZE)


def training_step(model: VAE, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    """Move the model one step down its loss on x (batch, 784); the loss is returned as a scalar."""
    loss, _ = model.loss(x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train(
    model: VAE, images: Tensor, folder: Path, *, run: int, iter_max: int, iter_save: int
) -> None:
    """Train the model for `iter_max` steps; save it in `folder` every `iter_save` and at the end.

    Args:
        model: on the device of the images.
        images: (n, 784) uint8, n at least BATCH_SIZE.
        folder: an earlier run's models in it are replaced when the first new one is saved.
        run: the seed of everything random here.

    Raises:
        OSError: the folder or a checkpoint cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)  # now, so that it does not fail after the training
    stale = {model_path(folder, step) for step in saved_steps(folder)}
    if stale:
        print(f"Deleting existing path: {folder}")
        print("(once the first checkpoint of this run is there to take its place)")
    device = images.device
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    pixels = torch.Generator(device).manual_seed(seed_for(run, PIXELS))
    with (
        seeded(seed_for(run, NOISE), device),
        tqdm(total=iter_max, unit="it", mininterval=0.25, dynamic_ncols=True) as bar,
    ):
        for step, rows in enumerate(batches(len(images), run, device), start=1):
            x = binarize(images.index_select(0, rows), pixels)
            loss = training_step(model, optimizer, x)
            # Reading the loss waits for the device, so only when the bar has just been drawn.
            if bar.update() or step == iter_max:
                bar.set_postfix(loss=f"{loss.item():.2e}", refresh=step == iter_max)
            if step % iter_save == 0 or step == iter_max:
                path = model_path(folder, step)
                save_model(model, path)
                tqdm.write(f"Saved to {path}")
                for old in stale - {path}:
                    old.unlink(missing_ok=True)
                stale = set()
            if step == iter_max:
                return
