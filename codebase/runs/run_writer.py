"""Saving, measuring, logging and interrupting a run while it trains."""

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from codebase.bounds import Bounds, Measured
from codebase.data import Images
from codebase.evaluate import measure
from codebase.runs import checkpoint, results
from codebase.runs.folder import RunFolder
from codebase.runs.provenance import git_commit, source_files
from codebase.system.errors import Interrupted, UserError, explain
from codebase.system.files import MOMENTARY
from codebase.system.signals import caught_signals
from codebase.system.streams import progress

LOG_EVERY = 100  # steps
LOOK_EVERY = 10  # steps between two checks for signals to other processes
# Besides the checkpoints, the bounds are measured after 100, 200, 500, 1,000, ... steps.
MEASURED_STEPS = {n * 10**e for n in (1, 2, 5) for e in range(2, 10)}


class RunWriter:
    """Saves, measures, logs and interrupts a training run.

    Call `after_step` once per step; it logs, measures and saves when due. The folder changes only
    after the first step has succeeded. Of several processes that share a batch, the first one
    writes, and all of them stop after the same step. `training` is a `train.Training`.
    """

    def __init__(
        self, training: Any, images: Images, iter_save: int, seconds_between_states: float
    ):
        self.training, self.images = training, images
        self.settings, self.processes = training.settings, training.processes
        self.iter_save, self.seconds_between_states = iter_save, seconds_between_states
        self.folder = RunFolder(training.settings)
        self.files = source_files(training.model)
        self.code = {"files": self.files, "commit": git_commit()}
        self.rows: list[results.Row] = []
        self.window = torch.zeros(3, device=training.device)  # sum of the bounds since the last row
        self.unsaved: dict[int, dict[str, Tensor]] = {}  # models by their steps
        self.measured: Measured | None = None  # the newest bounds, in the first process
        self.signals: list[int] = []
        self.show_interval = 0.0
        self.first_step_pending = True
        self.started_at = self.saved_at = self.shown_at = time.monotonic()

    @contextmanager
    def session(self, resume: bool) -> Iterator[None]:
        """Lock the folder, resume its run if asked, catch signals, and show a progress bar.

        Raises UserError if the state is not intact, or another process trains in the folder.
        """
        lock = self.folder.lock() if self.processes.first else nullcontext()
        with lock, caught_signals() as signals:
            self.signals = signals
            if resume:
                self._resume()
            run, iter_max = self.settings.run, self.settings.iter_max
            with progress(run, self.training.step, iter_max) as (show, show_interval):
                self.show, self.show_interval = show, show_interval
                try:
                    yield
                except ValueError:  # torch.distributions refuses parameters that are not finite
                    self._check_finite()
                    raise

    def after_step(self, losses: Tensor) -> None:
        """Log, measure and save when due, given loss, NELBO, KL and REC of the step, (4,).

        Raises Interrupted after saving, if a process has received a signal and steps remain, and
        UserError if the training has diverged.
        """
        step, iter_max = self.training.step, self.settings.iter_max
        if self.first_step_pending:
            self._enter_folder()
        self.window += losses[1:]
        if step % LOG_EVERY == 0:
            self._add_row(results.TRAIN, Bounds(*(self.window / LOG_EVERY).tolist()))
            self.window.zero_()
        model_due = self._is_model_due()
        if model_due or step in MEASURED_STEPS:
            self._measure()
        stopping = False
        if step < iter_max and (self.processes.size == 1 or step % LOOK_EVERY == 0):
            stopping = self.processes.any(bool(self.signals))
        now = time.monotonic()
        state_due = model_due or stopping or now - self.saved_at >= self.seconds_between_states
        # Reading the loss waits for the device, so it is read a few times per second only.
        if state_due or now - self.shown_at >= self.show_interval:
            loss = losses[0].item()
            self._check_finite(loss)
            self.show(step, loss)
            self.shown_at = now
        if state_due:
            self._save(model_due, is_last=stopping or step == iter_max)
            self.saved_at = now
        if stopping:
            advice = "the same command with --resume 1 continues from there"
            # Under torchrun another process may have received the signal.
            number = self.signals[0] if self.signals else signal.SIGTERM
            raise Interrupted(f"interrupted at step {step}; {advice}", number)

    def _enter_folder(self) -> None:
        """Move an earlier run aside unless this one continues it, and write the settings."""
        self.first_step_pending = False
        if not self.processes.first:
            return
        start = self.training.step - 1
        if start == 0 and (earlier := self.folder.move_aside()):
            tqdm.write(f"The earlier run is now {earlier}; --resume 1 would have continued it")
        results.write_settings(self.folder, self.training.device, start, self.code)

    def _resume(self) -> None:
        """Restore the run from its folder, if there is one, and complete its last save."""
        try:
            first = self.processes.first
            state = checkpoint.load_state(self.folder, self.files) if first else None
            state = self.processes.broadcast(state)
            if state is None:
                tqdm.write(f"Nothing to resume in {self.folder.path}: starting a new run")
                return
            with checkpoint.checkpoint_errors(f"{self.folder.state} does not fit these networks"):
                self.training.load_state_dict(state["training"])
                self.window = state["window"].to(self.window).view(3)
                self.started_at -= state["seconds"]
        except UserError as error:
            advice = f"without --resume 1 a new run starts, and {self.folder.path} is renamed"
            raise UserError(f"{error}; {advice}") from error
        step, iter_max = self.training.step, self.settings.iter_max
        self.rows = [row for row in results.read_metrics(self.folder) if row.step <= step]
        state_of_run = "Resuming" if step < iter_max else "The run is already"
        tqdm.write(f"{state_of_run} at step {step}")
        if step > iter_max:
            checkpoint.load_model(self.training.model, self.folder.model(iter_max))
        elif self._is_model_due() and step not in self.folder.saved_steps():
            # The process was killed before writing the model, or iter_save was another.
            self._measure()
            self._save(model_due=True)

    def _is_model_due(self) -> bool:
        step = self.training.step
        return step % self.iter_save == 0 or step == self.settings.iter_max

    def _measure(self) -> None:
        if self.processes.first:
            self.measured = measure(self.training.model, self.images)
            for images, bounds in results.sets_of(self.measured).items():
                self._check_finite(bounds.nelbo)
                self._add_row(images, bounds)

    def _add_row(self, images: str, bounds: Bounds) -> None:
        # After a resume, a row may be there already.
        step, seconds = self.training.step, round(time.monotonic() - self.started_at, 3)
        self.rows = [row for row in self.rows if (row.step, row.images) != (step, images)]
        self.rows.append(results.Row(step, images, bounds, seconds))

    def _save(self, model_due: bool, is_last: bool = True) -> None:
        """Write the rows and the state, and the model if it is due or could not be written."""
        if not self.processes.first:
            return
        if model_due:
            self.unsaved[self.training.step] = checkpoint.plain_parameters(self.training.model)
        state = {
            "settings": self.settings.identity(),
            **self.code,
            "training": self.training.state_dict(),
            "window": self.window,
            "seconds": round(time.monotonic() - self.started_at, 3),
        }
        try:
            checkpoint.save_run(self.folder, self.rows, state, self.unsaved)
        except OSError as error:
            if is_last or error.errno not in MOMENTARY:
                raise
            tqdm.write(f"Warning: {explain(error)}; the next save tries again", file=sys.stderr)

    def _check_finite(self, value: float = 0.0) -> None:
        """Raise a UserError if a loss or bound, or a parameter, is not finite."""
        parameters = self.training.model.parameters()
        if math.isfinite(value) and all(p.isfinite().all() for p in parameters):
            return
        saved = self.folder.saved_steps()
        last_good = self.folder.model(saved[-1]) if saved else "none"
        raise UserError(
            f"the training diverged: at step {self.training.step} the loss, a bound or a parameter "
            f"is not finite; last good checkpoint: {last_good}; a smaller --lr may help"
        )
