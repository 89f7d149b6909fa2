"""Runs that are ended by signals, divergence, a full disk or a second process."""

import errno
import os
import resource
import signal
from contextlib import nullcontext

import pytest
import torch
from torch.distributions import Normal
from training import (
    RUN,
    TINY,
    after_each_step,
    files_in,
    results_in,
    signal_after,
    state_step,
    train_small,
    uninterrupted,
)

from codebase import utils
from codebase.bounds import Bounds, Measured
from codebase.runs import checkpoint, run_writer
from codebase.system.errors import Interrupted, UserError
from codebase.train import Training

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.slow
def test_a_signal_while_files_are_written_stops_the_run_after_the_next_step(monkeypatch, stray):
    whole, plain = uninterrupted(iter_save=10), os.fsync

    def interrupted(descriptor):
        """Send signals before each file gets its name, except settings.json before the steps."""
        plain(descriptor)
        if RUN.path.joinpath("settings.json").exists():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)

    stop = pytest.raises(Interrupted, match=r"step 11; .*--resume 1")
    with monkeypatch.context() as patch, stop as caught:
        patch.setattr("os.fsync", interrupted)
        train_small(iter_save=10)
    assert caught.value.status == 128 + signal.SIGHUP  # the first signal
    assert (RUN.saved_steps(), state_step(), stray) == ([10], 11, [])
    with signal_after(19):  # in the last step there is none to stop before
        train_small(iter_save=10, resume=True)
    assert results_in(RUN.path) == whole


def poison(patch, step, value, index=None):
    """Change the loss of a step, or a parameter after it."""
    take_step = Training.take_step

    def poisoned_step(training, images):
        losses = take_step(training, images)
        if training.step == step:
            changed = losses if index is None else [*training.model.parameters()][index].data
            changed[0] = value
        return losses

    patch.setattr(Training, "take_step", poisoned_step)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("what", "step"), [("loss", 13), ("parameter", 20), ("bound", 20)])
def test_a_run_that_diverges_ends_and_all_its_files_are_finite(monkeypatch, what, step, value):
    if what == "bound":
        first, wrong = (Measured(Bounds(1.0, 1.0, 1.0), Bounds(x, 1.0, 1.0)) for x in (2.0, value))
        monkeypatch.setattr(run_writer, "measure", lambda *_, left=[first, wrong]: left.pop(0))
    else:
        poison(monkeypatch, step, value, index=-1 if what == "parameter" else None)
    with pytest.raises(UserError, match=rf"diverged.* step {step} .*--lr") as caught:
        train_small(iter_save=10, seconds_between_states=0)
    assert caught.value.status == 1 and str(RUN.model(10)) in str(caught.value)
    training = checkpoint.load(RUN.state)["training"]
    assert (RUN.saved_steps(), training["step"]) == ([10], step - 1)
    for parameters in (training["model"], checkpoint.load(RUN.model(10))):
        assert all(x.isfinite().all() for x in parameters.values())
    assert not {"nan", "inf"} & {*RUN.metrics.read_text().replace("\n", ",").split(",")}


def test_a_value_error_of_torch_distributions_is_a_divergence_if_the_model_diverged(monkeypatch):
    """Normal raises it in the step after that, before the loss is looked at."""

    def sample(m, v):
        return Normal(m, v.sqrt(), validate_args=True).rsample()

    monkeypatch.setattr(utils, "sample_gaussian", lambda m, v: sample(m, -v))
    with pytest.raises(ValueError, match="constraint"):
        train_small()
    monkeypatch.setattr(utils, "sample_gaussian", sample)
    poison(monkeypatch, 13, torch.nan, index=2)
    with pytest.raises(UserError, match=r"diverged.* step 13 "):
        train_small(seconds_between_states=1_000_000)


@pytest.mark.slow
def test_a_full_disk_deletes_nothing_and_once_there_is_room_the_run_ends_in_the_same_bytes():
    """The system limits the size of a file: there is room for a model, but not for a state."""
    longer = TINY._replace(iter_max=60)
    whole = uninterrupted(longer, iter_save=15)
    train_small(iter_save=15)
    before = files_in(RUN.path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            train_small(longer, iter_save=15, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.filename == str(RUN.state)
    changed = {name for name, content in files_in(RUN.path).items() if before.get(name) != content}
    assert changed == {"metrics.csv", "settings.json"}
    train_small(longer, iter_save=15, resume=True)
    assert results_in(RUN.path) == whole


@pytest.mark.parametrize("until", [10, 30])
def test_a_refused_save_is_made_up_for_unless_it_is_the_last(monkeypatch, capsys, until):
    """Until a step, no file gets its name, as on a network that is away."""
    whole, steps = uninterrupted(iter_save=10), []

    def refuse(source, target):
        if 1 < len(steps) <= until:
            raise OSError(errno.ESTALE, "Stale file handle", target)
        source.rename(target)

    with after_each_step(lambda *_: steps.append(1)), monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        patch.setattr("time.sleep", lambda _: None)
        with nullcontext() if until == 10 else pytest.raises(OSError, match="Stale"):
            train_small(iter_save=10)
    assert "Warning: " in capsys.readouterr().err
    assert until == 30 or results_in(RUN.path) == whole


def test_a_second_process_is_refused_and_changes_nothing():
    def start_another(*_):
        before = files_in(RUN.path.parent)
        with pytest.raises(UserError, match=f"another process .* {RUN.path}"):
            train_small(resume=True)
        assert files_in(RUN.path.parent) == before

    with after_each_step(start_another):
        train_small(TINY._replace(iter_max=3))
    assert RUN.saved_steps() == [3]
