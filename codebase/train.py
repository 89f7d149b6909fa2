"""A training run: steps, checkpoints, and what happens to it on the way."""

import math
import time
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from codebase import checkpoint, evaluate
from codebase.data import Images
from codebase.errors import CheckpointError, DivergenceError, Interrupted
from codebase.files import append_row, locked, write_atomically, write_table
from codebase.models.vae import VAE
from codebase.resume import Progress, load_state, save_state
from codebase.seeds import NOISE, seed_for, seeded
from codebase.signals import caught_signals
from codebase.step import Settings, Training, all_finite, start, training_steps

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
    bar_row: int | None = None,
) -> float:
    """Train the model up to step `iter_max`, saving it every `iter_save` steps and at the end.

    Beside the models, `training-state.pt` is kept up to date for resuming, and `metrics.csv` with
    the bounds on the way: the means over LOG_EVERY training steps, and those on the report's test
    images at each checkpoint.

    Args:
        model: on the device to train on.
        images: at least codebase.step.BATCH_SIZE of them to train on.
        folder: an earlier run's models in it are removed when this one's first is saved; until
            then its training state is kept as `earlier-training-state.pt`.
        resume: go on from the state in the folder, if there is one.
        bar_row: of the terminal, for one of several runs, whose bar vanishes at the end; None: the
            run is alone, and its bar stays.

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
        progress = Progress(0, 0.0, checkpoint.saved_steps(folder), [], torch.zeros(3))
        state = checkpoint.state_path(folder)
        if resume and state.exists():
            progress = load_state(state, settings, training)
            done = progress.step >= settings.iter_max
            print(f"{'Already' if done else 'Resuming'} at step {progress.step}")
        elif resume:
            print(f"Nothing to resume in {folder}: starting anew")
        elif state.exists() and not checkpoint.earlier_state_path(folder).exists():
            write_atomically(checkpoint.earlier_state_path(folder), state.read_bytes())
        last_model = checkpoint.model_path(folder, settings.iter_max)
        if progress.step >= settings.iter_max and settings.iter_max in progress.stale:
            raise CheckpointError(
                f"{last_model} is an earlier run's; train on with a larger --iter_max"
            )
        if progress.step == settings.iter_max:
            checkpoint.save_model(model, last_model)  # it may have been interrupted just before
        if progress.step > settings.iter_max:
            checkpoint.load_model(model, last_model)
        if progress.step >= settings.iter_max:
            return progress.seconds
        if progress.stale:
            print(f"Deleting existing path: {folder}")
            print("(once the first checkpoint of this run is there to take its place)")
        return _run(training, images, folder, settings, progress, iter_save, bar_row)


def _run(
    training: Training,
    images: Images,
    folder: Path,
    settings: Settings,
    progress: Progress,
    iter_save: int,
    bar_row: int | None,
) -> float:
    """Take the steps that are left and return the seconds of training."""
    done, seconds, stale, metrics, window = progress
    device = training.pixels.device
    window = window.to(device)
    steps = training_steps(training, images.train.to(device), settings.run, done)
    test_images = evaluate.report_images(images)
    state_saved = time.monotonic()
    began = state_saved - seconds

    # Over an earlier run, its metrics are kept until this run has a checkpoint of its own.
    log = folder / "metrics.csv"
    log_is_own = not stale and not checkpoint.earlier_state_path(folder).exists()
    if log_is_own:
        write_table(log, [METRICS, *metrics])

    def save(step: int, with_log: bool) -> None:
        """Write the state after `step` steps, and the metrics up to there."""
        nonlocal state_saved, seconds
        state_saved = time.monotonic()
        seconds = state_saved - began
        if with_log:
            write_table(log, [METRICS, *metrics])
        progress = Progress(step, seconds, stale, metrics, window)
        save_state(checkpoint.state_path(folder), progress, settings, training)

    with (
        caught_signals() as signals,
        tqdm(
            desc=f"run {settings.run}",
            initial=done,
            total=settings.iter_max,
            mininterval=0.25,
            dynamic_ncols=True,
            position=bar_row,
            leave=bar_row is None,
            disable=False,
        ) as bar,
    ):
        for step, bounds in enumerate(islice(steps, settings.iter_max - done), start=done + 1):
            window += bounds
            if step % LOG_EVERY == 0:
                metrics.append((step, "train", *(window / LOG_EVERY).tolist()))
                window.zero_()
                if log_is_own:
                    append_row(log, metrics[-1])
            model_due = step % iter_save == 0 or step == settings.iter_max
            stopping = bool(signals)
            drawn = bar.update()
            state_due = drawn and time.monotonic() - state_saved > SECONDS_BETWEEN_STATES
            # Reading the loss waits for the device, so only when the bar has just been drawn.
            if drawn or model_due or stopping:
                loss = bounds[0].item()
                bar.set_postfix(loss=f"{loss:.2e}", refresh=model_due)
                _check_finite(loss, step, training.model, folder, stale)
            if model_due:
                path = checkpoint.model_path(folder, step)
                checkpoint.save_model(training.model, path)
                tqdm.write(f"Saved to {path}")
                measured = evaluate.bounds(training.model, test_images, evaluate.REPORT_PASSES)
                metrics.append((step, "test", *measured))
                stale = [old for old in stale if old != step]
            if model_due or state_due or stopping:
                save(step, with_log=log_is_own or model_due)
            if model_due:  # now that this run has a model and a state, the earlier one's go
                for old in stale:
                    checkpoint.model_path(folder, old).unlink(missing_ok=True)
                checkpoint.earlier_state_path(folder).unlink(missing_ok=True)
                stale, log_is_own = [], True
            if stopping:
                break
    if signals:
        raise Interrupted(
            f"interrupted at step {step}, which is saved; the same command with --resume 1 goes on "
            "from there",
            signals[0],
        )
    return seconds


def _check_finite(loss: float, step: int, model: VAE, folder: Path, stale: list[int]) -> None:
    if math.isfinite(loss) and all_finite(model):
        return
    saved = [*set(checkpoint.saved_steps(folder)) - set(stale)] or ["none"]
    raise DivergenceError(
        f"the training diverged: the loss is {loss} at step {step}; last good checkpoint in "
        f"{folder}: {max(saved)}; a smaller --lr may help"
    )
