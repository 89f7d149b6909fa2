"""What keeps a run while it trains: its folder, its rows, its models, its bar, and its end."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from codebase.data import Images
from codebase.evaluate import ALL_TEST, TEST, Bounds, measure
from codebase.runs import checkpoint
from codebase.runs.folder import locked, model_path, move_aside, run_folder, saved_steps, state_path
from codebase.runs.metrics import TRAIN, Row, read_metrics, write_metrics
from codebase.runs.record import write_settings
from codebase.system.errors import CheckpointError, Interrupted, UserError
from codebase.system.progress import progress
from codebase.system.signals import caught_signals

LOG_EVERY = 100  # steps
# Steps after which the bounds on test images are measured, beside those of the checkpoints.
TEST_AFTER = {n * 10**e for n in (1, 2, 5) for e in range(2, 10)}


class Keeper:
    """Keeps a `train.Training` in its folder. After each step it is told, and does what is due.

    Of several processes that share a batch, the first writes, and all end after the same step.
    """

    def __init__(
        self, training: Any, images: Images, iter_save: int, seconds_between_states: float
    ):
        self.training, self.images = training, images
        self.iter_save, self.seconds_between_states = iter_save, seconds_between_states
        self.folder = run_folder(training.settings)
        self.rows: list[Row] = []
        self.window = torch.zeros(3, device=training.device)  # sum of the bounds since the last row
        self.began = self.saved = self.shown = time.monotonic()

    @contextmanager
    def keeping(self, resume: bool) -> Iterator[None]:
        """Lock the folder, catch signals and show a bar inside the block.

        Before, go on with what the folder holds, or move it aside.

        Raises:
            CheckpointError: there is nothing sound to resume.
            BusyError: another process is training in the folder.
            Interrupted: a signal came while the last step was kept.
        """
        training, first = self.training, self.training.team.first
        with locked(self.folder) if first else nullcontext(), caught_signals() as self.caught:
            for leftover in self.folder.glob(".*.tmp") if first else ():  # of a process that died
                leftover.unlink(missing_ok=True)
            if resume:
                self._resume()
            elif first and (earlier := move_aside(self.folder)):
                advice = "--resume 1 would have gone on with it"
                tqdm.write(f"The earlier run is now {earlier}; {advice}")
            if first and training.step < training.settings.iter_max:
                write_settings(self.folder, training.settings, training.device, training.step)
            run, total = training.settings.run, training.settings.iter_max
            with progress(run, training.step, total) as (self.show, self.show_every):
                try:
                    yield
                except ValueError:  # torch.distributions refuses parameters that are not finite
                    self._check_finite()
                    raise
            if self.caught:
                raise self._interruption()

    def after_step(self, loss: Tensor, bounds: Tensor) -> None:
        """Do what is due after a step of which the loss (scalar) and the bounds (3,) are given.

        It raises Interrupted once a signal came and all is saved, and a UserError on divergence.
        """
        training = self.training
        self.window += bounds
        if training.step % LOG_EVERY == 0:
            self._add_row(TRAIN, Bounds(*(self.window / LOG_EVERY).tolist()))
            self.window.zero_()
        if self._model_due() or training.step in TEST_AFTER:
            self._measure()
        ending = training.team.any(bool(self.caught))  # once: a later signal is for the next step
        now = time.monotonic()
        state_due = ending or self._model_due() or now - self.saved >= self.seconds_between_states
        # Reading the loss waits for the device, so this is done a few times each second only.
        if state_due or now - self.shown >= self.show_every:
            self._check_finite(loss.item())
            self.show(training.step, loss.item())
            self.shown = now
        if state_due:
            self._save()
            self.saved = now
        if ending:
            raise self._interruption()

    def _resume(self) -> None:
        """Put the training into the state that the folder holds, if there is one."""
        training, path, state = self.training, state_path(self.folder), None
        try:
            if training.team.first:
                state = checkpoint.read_state(self.folder, training.settings)
            state = training.team.from_first(state)
            if state is None:
                tqdm.write(f"Nothing to resume in {self.folder}: starting anew")
                return
            with checkpoint.refused(f"{path} is of other networks or no training state"):
                training.load_state_dict(state["training"])
                self.window.copy_(state["window"])
                self.began -= state["seconds"]
        except CheckpointError as error:
            anew = f"without --resume 1 a new run starts, and {self.folder} is kept"
            raise CheckpointError(f"{error}; {anew} under another name") from error
        self.rows = [row for row in read_metrics(self.folder) if row.step <= training.step]
        iter_max = training.settings.iter_max
        word = "Already" if training.step >= iter_max else "Resuming"
        tqdm.write(f"{word} at step {training.step}")
        if training.step > iter_max:
            if not saved_steps(self.folder):  # it was interrupted before its first
                reason = f"{self.folder} is at step {training.step}, and has no model yet"
                raise CheckpointError(f"{reason}; choose a larger --iter_max to go on")
            checkpoint.load_model(training.model, model_path(self.folder, iter_max))
        elif self._model_due() and training.step not in saved_steps(self.folder):
            self._measure()  # it was not due when the state was saved, or its writing was killed
            self._save()

    def _interruption(self) -> Interrupted:
        """What is raised once a signal came and all is saved."""
        advice = "the same command with --resume 1 goes on from there"
        number = self.caught[0] if self.caught else signal.SIGTERM  # another process received it
        return Interrupted(f"interrupted at step {self.training.step}; {advice}", number)

    def _model_due(self) -> bool:
        step = self.training.step
        return step % self.iter_save == 0 or step == self.training.settings.iter_max

    def _measure(self) -> None:
        """Add the bounds on test images to the rows, if they are not there."""
        measured = {row.images for row in self.rows if row.step == self.training.step}
        if self.training.team.first and not {TEST, ALL_TEST} <= measured:
            for name, bounds in measure(self.training.model, self.images).items():
                self._check_finite(bounds.nelbo)
                self._add_row(name, bounds)

    def _add_row(self, images: str, bounds: Bounds) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        self.rows.append(Row(self.training.step, images, *bounds, seconds))

    def _save(self) -> None:
        """Write the rows and the state, and the model if it is due."""
        if not self.training.team.first:
            return
        # In this order a run that is killed on the way needs nothing but to write the rest again.
        write_metrics(self.folder, self.rows)
        state = {
            "settings": self.training.settings.deciding(),
            "training": self.training.state_dict(),
            "window": self.window,
            "seconds": time.monotonic() - self.began,
        }
        checkpoint.save(state, state_path(self.folder))
        if self._model_due():
            path = model_path(self.folder, self.training.step)
            checkpoint.save_model(self.training.model, path)
            tqdm.write(f"Saved to {path}")

    def _check_finite(self, value: float = 0.0) -> None:
        """Refuse a value, a loss or a bound, or parameters that are not finite."""
        parameters, first = self.training.model.parameters(), self.training.team.first
        if not first or (math.isfinite(value) and all(p.isfinite().all() for p in parameters)):
            return  # the first judges for all
        where = f"at step {self.training.step} the loss, a bound or a parameter is not finite"
        last_good = f"{self.folder}: {max(saved_steps(self.folder), default='none')}"
        raise UserError(
            f"the training diverged: {where}; last good checkpoint in {last_good}; "
            "a smaller --lr may help"
        )
