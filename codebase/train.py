"""A training run: steps, checkpoints, and what happens to it on the way."""

import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from codebase import checkpoint, evaluate
from codebase.data import Images
from codebase.errors import CheckpointError, DivergenceError, Interrupted
from codebase.files import locked, write_table
from codebase.machine import caught_signals
from codebase.models.vae import VAE
from codebase.seeds import NOISE, seed_for, seeded
from codebase.step import Settings, Training, restore, start, state_of, training_steps

SECONDS_BETWEEN_STATES = 60
LOG_EVERY = 100  # steps
METRICS = ("step", "images", "NELBO", "KL", "REC")  # the columns of metrics.csv


def train(
    model: VAE,
    images: Images,
    folder: Path,
    settings: Settings,
    *,
    iter_save: int,
    resume: bool = False,
    bar_row: int = 0,
) -> float:
    """Train the model up to step `iter_max`, saving it every `iter_save` steps and at the end.

    Beside the models, `training-state.pt` is kept up to date for resuming, and `metrics.csv` with
    the bounds on the way: the means over LOG_EVERY training steps, and those on the report's test
    images at each checkpoint.

    Args:
        model: on the device to train on.
        images: at least codebase.step.BATCH_SIZE of them to train on.
        folder: an earlier run's models in it are removed when this one's first is saved.
        resume: go on from the state in the folder, if there is one.
        bar_row: the row of the terminal that the bar is drawn in.

    Returns:
        seconds of training, those before the run was resumed included.

    Raises:
        CheckpointError: the state is damaged or is one of other settings.
        BusyError: another process is training in the folder.
        DivergenceError: the loss or the parameters are no longer finite.
        Interrupted: a signal came, and the state has been saved.
        OSError: something cannot be written.
    """
    with locked(folder), seeded(seed_for(settings.run, NOISE), model.z_prior_m.device):
        training = start(model, settings)
        # "stale" are the steps of an earlier run whose models are still in the folder.
        state = {
            "step": 0,
            "seconds": 0.0,
            "stale": checkpoint.saved_steps(folder),
            "metrics": [],
            "window": torch.zeros(3),
        }
        if resume and checkpoint.state_path(folder).exists():
            state = load_state(folder, settings, training)
            print(f"Resuming at step {state['step']}")
        elif resume:
            print(f"Nothing to resume in {folder}: starting anew")
        if state["step"] >= settings.iter_max:
            checkpoint.load_model(model, checkpoint.model_path(folder, settings.iter_max))
            return state["seconds"]
        if state["stale"]:
            print(f"Deleting existing path: {folder}")
            print("(once the first checkpoint of this run is there to take its place)")
        return _run(training, images, folder, settings, state, iter_save, bar_row)


def load_state(folder: Path, settings: Settings, training: Training) -> dict[str, Any]:
    """Read the training state in the folder and put the training into it.

    Raises:
        CheckpointError: it is damaged or one of other settings.
    """
    path = checkpoint.state_path(folder)
    state = checkpoint.load(path)
    try:
        then, now = state["settings"], settings._asdict()
        if settings.lr_schedule == "constant":
            then = then | {"iter_max": settings.iter_max}  # only a goal, then
        differences = [
            f"{key} was {then[key]} and is {now[key]}" for key in now if then[key] != now[key]
        ]
        if not differences:
            restore(training, state)
    except Exception as error:  # whatever a foreign or damaged state provokes
        raise CheckpointError(
            f"{path} is damaged or no training state; delete it to start anew"
        ) from error
    if differences:
        raise CheckpointError(f"{path} is of other settings: {', '.join(differences)}")
    return state


def _run(
    training: Training,
    images: Images,
    folder: Path,
    settings: Settings,
    state: dict[str, Any],
    iter_save: int,
    bar_row: int,
) -> float:
    """Take the steps that are left. `state` says how far the run has come."""
    device = training.pixels.device
    done, stale, metrics = state["step"], state["stale"], state["metrics"]
    window = state["window"].to(device)  # the sum of the bounds since the last row of metrics
    state_saved = time.monotonic()
    began = state_saved - state["seconds"]
    steps = training_steps(training, images.train.to(device), settings.run, done)
    test_images = evaluate.report_images(images)
    with (
        caught_signals() as signals,
        tqdm(
            desc=f"run {settings.run}",
            initial=done,
            total=settings.iter_max,
            mininterval=0.25,
            dynamic_ncols=True,
            position=bar_row,
        ) as bar,
    ):
        for step, bounds in enumerate(islice(steps, settings.iter_max - done), start=done + 1):
            window += bounds
            if step % LOG_EVERY == 0:
                metrics.append((step, "train", *(window / LOG_EVERY).tolist()))
                window.zero_()
            last = step == settings.iter_max
            model_due = last or step % iter_save == 0
            drawn = bar.update()
            state_due = drawn and time.monotonic() - state_saved > SECONDS_BETWEEN_STATES
            save = model_due or state_due or signals
            # Reading the loss waits for the device, so only when the bar has just been drawn.
            if drawn or save:
                loss = bounds[0].item()
                bar.set_postfix(loss=f"{loss:.2e}", refresh=last)
                if not (math.isfinite(loss) and (not save or all_finite(training.model))):
                    saved = [*set(checkpoint.saved_steps(folder)) - set(stale)] or ["none"]
                    raise DivergenceError(
                        f"the training diverged: the loss is {loss} at step {step}; last "
                        f"good checkpoint in {folder}: {max(saved)}; a smaller --lr may help"
                    )
            if model_due:
                path = checkpoint.model_path(folder, step)
                checkpoint.save_model(training.model, path)
                tqdm.write(f"Saved to {path}")
                measured = evaluate.bounds(training.model, test_images, evaluate.REPORT_PASSES)
                metrics.append((step, "test", *measured))
                for old in stale:
                    if old != step:
                        checkpoint.model_path(folder, old).unlink(missing_ok=True)
                stale = []
            if save:
                state_saved = time.monotonic()
                progress = {
                    "step": step,
                    "seconds": state_saved - began,
                    "stale": stale,
                    "metrics": metrics,
                    "window": window,
                    "settings": settings._asdict(),
                }
                checkpoint.save(progress | state_of(training), checkpoint.state_path(folder))
                write_table(folder / "metrics.csv", [METRICS, *metrics])
            if signals and not last:
                raise Interrupted(
                    f"interrupted at step {step}, which is saved; --resume 1 goes on from there",
                    signals[0],
                )
    return time.monotonic() - began


def all_finite(model: VAE) -> bool:
    """Whether every parameter is a finite number."""
    return all(parameter.isfinite().all() for parameter in model.parameters())
