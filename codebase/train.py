"""A training run: its step, what the step changes, and the loop around it."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from tqdm import tqdm

from codebase import checkpoint, evaluate, seeds
from codebase.data import Images, batches, binarize
from codebase.distributed import ALONE, Team
from codebase.errors import CheckpointError, DataError, DivergenceError, Interrupted
from codebase.files import write_table
from codebase.models.vae import VAE
from codebase.progress import every
from codebase.settings import SCHEDULES, Settings
from codebase.signals import caught_signals

LOG_EVERY = 100  # steps
# Steps after which the bounds on test images are measured, beside those of the checkpoints.
TEST_AFTER = {n * 10**e for n in (1, 2, 5) for e in range(2, 10)}


def new_model(settings: Settings) -> VAE:
    """A model with the run's own initial weights, on the CPU."""
    with seeds.seeded(seeds.seed_for(settings.run, seeds.WEIGHTS), torch.device("cpu")):
        return VAE(nn=settings.nn, name=settings.name, z_dim=settings.z)


def load_trained(settings: Settings, device: torch.device) -> VAE:
    """The run's model as it was saved after `iter_max` steps.

    Raises:
        CheckpointError, OSError: as `checkpoint.load_model`.
    """
    model = new_model(settings).to(device)
    folder = checkpoint.run_folder(settings)
    checkpoint.load_model(model, checkpoint.model_path(folder, settings.iter_max))
    return model


class Training:
    """A run while it trains: model, optimizer, sources of randomness, and what was measured.

    The latent noise comes from the device's global source of randomness, whose state is kept too.
    """

    def __init__(self, settings: Settings, device: torch.device, team: Team = ALONE):
        self.settings, self.device, self.team = settings, device, team
        self.model = new_model(settings).to(device)
        self.loss = team.share_loss(self.model)
        self.optimizer = Adam(self.model.parameters(), lr=settings.lr, fused=True)
        seed = seeds.seed_for(settings.run, seeds.PIXELS)
        self.pixels = torch.Generator(device).manual_seed(seed)
        self.step, self.seconds = 0, 0.0
        self.window = torch.zeros(3, device=device)  # the sum of the bounds since the last row
        self.metrics: list[tuple[int, str, float, float, float]] = []

    def take_step(self, images: Tensor) -> Tensor:
        """Move the model one step down its loss. Nothing here waits for the device.

        Args:
            images: (batch_size, 784) uint8.

        Returns:
            the loss, a scalar on the device.
        """
        factor = SCHEDULES[self.settings.lr_schedule](self.step, self.settings.iter_max)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
        self.optimizer.zero_grad()  # first, so that what follows is computed in the memory it frees
        loss, summaries = self.loss(binarize(images, self.pixels))
        loss.backward()
        self.optimizer.step()
        bounds = [-summaries["gen/elbo"], summaries["gen/kl_z"], summaries["gen/rec"]]
        self.window += torch.stack(bounds).detach()
        self.step += 1
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that a step changes, and what it was done with, as tensors and plain values."""
        return {
            "settings": self.identity(),
            "step": self.step,
            "seconds": self.seconds,
            "window": self.window,
            "metrics": self.metrics,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],  # the rest of it is settings
            "pixels": self.pixels.get_state(),
            "noise": seeds.get_global_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`, or raise some error if it is none."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state["optimizer"]})
        self.pixels.set_state(state["pixels"])
        seeds.set_global_state(state["noise"], self.device)
        self.window.copy_(state["window"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.metrics = [(s, i, float(n), float(k), float(r)) for s, i, n, k, r in state["metrics"]]

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to be resumed."""
        identity = self.settings._asdict() | {"device": self.device.type}
        if self.settings.lr_schedule == "constant":
            del identity["iter_max"]  # with a constant rate it changes no step before it
        return identity


def train(
    settings: Settings,
    images: Images,
    device: torch.device,
    *,
    iter_save: int = 10_000,
    resume: bool = False,
    team: Team = ALONE,
    show: Callable[[int, float], None] = lambda step, loss: None,
    seconds_between_states: float = 60,
) -> VAE:
    """Train the run's model for `iter_max` steps, saving it every `iter_save` steps and at the end.

    Beside the models, `training-state.pt` is kept up to date for resuming, and `metrics.csv` with
    the bounds on the way. An earlier run of the same name is moved aside.

    Args:
        resume: go on from the state in the run's folder, if there is one.
        team: the processes that share each batch.
        show: is told the step and the loss a few times each second.

    Raises:
        CheckpointError: there is nothing sound to resume, or it is of other settings.
        BusyError: another process is training in the folder.
        DataError: the images are fewer than a batch, or the processes cannot share one evenly.
        DivergenceError: the loss, a bound on test images or the parameters are no longer finite.
        Interrupted: a signal came, and the state has been saved.
        OSError: something cannot be written.
    """
    if settings.batch_size > len(images.train):
        most = f"there are {len(images.train)} images to train on"
        raise DataError(f"--batch_size {settings.batch_size} is too large: {most}")
    if settings.batch_size % team.size:
        unshared = f"{team.size} processes cannot share --batch_size {settings.batch_size} evenly"
        raise DataError(f"{unshared}; choose a multiple of {team.size}")
    folder = checkpoint.run_folder(settings)
    lock = checkpoint.locked(folder) if team.first else nullcontext()
    noise = seeds.seeded(seeds.seed_for(settings.run, seeds.NOISE), device)
    with lock, noise, caught_signals() as caught:
        training = Training(settings, device, team)
        pixels = images.train.to(device)
        if resume:
            _resume(training, images, folder, iter_save)
        elif team.first and (earlier := checkpoint.move_aside(folder)):
            tqdm.write(f"The earlier run is now {earlier}; --resume 1 would have gone on with it")
        order = batches(len(pixels), settings.batch_size, settings.run, device, training.step)
        show_due, state_due = every(0.25), every(seconds_between_states)
        began = time.monotonic() - training.seconds
        stopping = False
        while training.step < settings.iter_max and not stopping:
            loss = training.take_step(pixels.index_select(0, next(order)))
            if training.step % LOG_EVERY == 0:
                means = (training.window / LOG_EVERY).tolist()
                training.metrics.append((training.step, "train", *means))
                training.window.zero_()
            model_due = _model_due(training, iter_save)
            if model_due or training.step in TEST_AFTER:
                _measure(training, images, folder)
            stopping = team.any(bool(caught))  # asked once: a later signal is for the next step
            save_due = model_due or stopping or state_due()
            # Reading the loss waits for the device, so this is done a few times each second only.
            if save_due or show_due():
                show(training.step, _check_finite(loss.item(), training, folder))
            if save_due:
                training.seconds = time.monotonic() - began
                _save(training, folder, model_due)
    if stopping or caught:
        advice = "the same command with --resume 1 goes on from there"
        number = caught[0] if caught else signal.SIGTERM  # which another process has received
        raise Interrupted(f"interrupted at step {training.step}; {advice}", number)
    return training.model


def _model_due(training: Training, iter_save: int) -> bool:
    return training.step % iter_save == 0 or training.step == training.settings.iter_max


def _save(training: Training, folder: Path, model_due: bool) -> None:
    """Write the state and the metrics, and the model if it is due."""
    if not training.team.first:
        return
    checkpoint.save(training.state_dict(), checkpoint.state_path(folder))
    write_table(checkpoint.metrics_path(folder), [checkpoint.METRICS, *training.metrics])
    if model_due:
        path = checkpoint.model_path(folder, training.step)
        checkpoint.save_model(training.model, path)
        tqdm.write(f"Saved to {path}")


def _resume(training: Training, images: Images, folder: Path, iter_save: int) -> None:
    """Put the training into the state that the folder holds, if there is one."""
    path, iter_max = checkpoint.state_path(folder), training.settings.iter_max
    anew = f"without --resume 1 a new run starts, and {folder} is kept under another name"
    team = training.team
    if not team.from_first(path.exists()):
        if checkpoint.saved_steps(folder):
            raise CheckpointError(f"{folder} has models, but no {path.name} to go on from; {anew}")
        tqdm.write(f"Nothing to resume in {folder}: starting anew")
        return
    # Adam has no averages before its first step. This step makes them; all of it is replaced below.
    training.take_step(images.train[: training.settings.batch_size].to(training.device))
    state = team.from_first(checkpoint.load(path) if team.first else None)
    try:
        then, now = state["settings"], training.identity()
        changes = [
            f"{key} was {then[key]} and is {now[key]}" for key in now if then[key] != now[key]
        ]
        if changes:
            raise CheckpointError(f"{path} is of other settings: {', '.join(changes)}")
        checkpoint.load_parameters(training.model, state["model"], path)
        if any(checkpoint.differences(state, training.state_dict())) or state["step"] < 1:
            raise ValueError("a training step would crash on it")
        training.load_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {anew}") from None
    except Exception as error:  # a state that something else has made can raise anything
        raise CheckpointError(f"{path} is no training state; {anew}") from error
    word = "Already" if training.step >= iter_max else "Resuming"
    tqdm.write(f"{word} at step {training.step}")
    if training.step > iter_max and team.first:
        checkpoint.load_model(training.model, checkpoint.model_path(folder, iter_max))
    elif _model_due(training, iter_save) and training.step not in checkpoint.saved_steps(folder):
        # A kill came after the state was saved, or iter_max was another.
        if not any(row[0] == training.step and row[1] != "train" for row in training.metrics):
            _measure(training, images, folder)
        _save(training, folder, model_due=True)


def _measure(training: Training, images: Images, folder: Path) -> None:
    """Add the bounds on test images to the metrics."""
    if not training.team.first:
        return
    measured = evaluate.measure(training.model, images).values()
    for kind, bounds in zip(("test", "all test"), measured, strict=True):
        training.metrics.append((training.step, kind, *bounds))
        _check_finite(bounds.nelbo, training, folder)


def _check_finite(value: float, training: Training, folder: Path) -> float:
    """The value, a loss or a bound, if it and the parameters are finite."""
    if math.isfinite(value) and all(p.isfinite().all() for p in training.model.parameters()):
        return value
    raise DivergenceError(
        f"the training diverged: at step {training.step} the loss, a bound or a parameter is not "
        f"finite; last good checkpoint in {folder}: "
        f"{max(checkpoint.saved_steps(folder), default='none')}; a smaller --lr may help"
    )
