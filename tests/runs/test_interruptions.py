"""Runs that are ended by signals, divergence, a full disk or a second process."""

import errno
import resource
import signal
from contextlib import nullcontext
from itertools import count

import pytest
import torch
from conftest import wait_for
from torch.distributions import Normal
from training import (
    FOLDER,
    RUN,
    TINY,
    after_each_step,
    change_loss,
    files_in,
    results_in,
    signal_after,
    state_step,
    train_small,
)

from codebase import utils
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.errors import Interrupted, UserError
from codebase.system.signals import ENDING

pytestmark = pytest.mark.usefixtures("place")
# The run of the command line in these tests.
OF_SMALL = RunFolder(Settings("tiny", 3, dataset="synthetic"))


# Signals.


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_the_run_and_sets_the_exit_status(run_vae, small, stray, number):
    with signal_after(7, number):
        stopped = run_vae(*small)
    assert stopped.returncode == 128 + number
    message = stopped.stderr.splitlines()[-1]
    assert message.startswith("run_vae.py: ")
    assert "step 7" in message and "--resume 1" in message
    assert state_step(OF_SMALL) == 7
    assert stray == []
    signal.raise_signal(number)
    assert stray == [number]  # the usual handlers are back


@pytest.mark.parametrize(("due", "reached"), [(10, 11), (30, 30)])
def test_a_signal_while_files_are_written_stops_the_run_after_the_next_step(
    monkeypatch, tmp_path, stray, due, reached
):
    """After the last step there is none, and the run is complete."""
    train_small(iter_save=due)
    whole = results_in(FOLDER.rename(tmp_path / "whole"))
    calls = count()

    def interrupted(_):
        """Send signals before each file gets its name, except settings.json before the steps."""
        if next(calls):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)

    stop = pytest.raises(Interrupted, match=f"step {reached};")
    with monkeypatch.context() as patch, stop if reached < 30 else nullcontext() as caught:
        patch.setattr("os.fsync", interrupted)
        train_small(iter_save=due)
    assert reached == 30 or caught.value.status == 128 + signal.SIGHUP  # the first signal
    assert RUN.saved_steps() == [due]
    assert state_step() == reached
    assert stray == []
    train_small(iter_save=due, resume=True)
    assert results_in(FOLDER) == whole


def test_a_signal_in_the_last_step_leaves_a_complete_run():
    with signal_after(30):
        train_small()
    assert RUN.saved_steps() == [state_step()] == [30]


# Divergence.


def bad_loss(patch, step, value):
    steps = count(1)
    change_loss(patch, lambda loss, _: loss + (value if next(steps) == step else 0))
    return nullcontext()


def bad_parameter(patch, step, value, index=-1):
    """Change a parameter after a step whose loss, that of the parameters before it, was finite."""

    def change(steps, adam):
        if steps == step:
            with torch.no_grad():
                adam.param_groups[0]["params"][index][-1] = value

    return after_each_step(change)


def bad_bound(patch, step, value):
    """Logits may be finite for other images and overflow for one of the test images."""
    plain = VAE.negative_elbo_bound

    def bound(model, x):
        nelbo, kl, rec = plain(model, x)
        bad = len(x) == 60 and RUN.saved_steps() == [10]
        return nelbo + (value if bad else 0), kl, rec

    patch.setattr(VAE, "negative_elbo_bound", bound)
    return nullcontext()


@pytest.mark.parametrize(
    ("cause", "step", "value"),
    [
        (bad_loss, 13, torch.nan),
        (bad_loss, 20, torch.inf),
        (bad_loss, 25, torch.nan),
        (bad_parameter, 13, torch.nan),
        (bad_parameter, 20, torch.inf),
        (bad_bound, 20, torch.inf),
    ],
)
def test_a_run_that_diverges_ends_and_all_its_files_are_finite(monkeypatch, cause, step, value):
    last_good = (step - 1) // 10 * 10
    diverged = pytest.raises(UserError, match=rf"diverged.* step {step} .*--lr")
    with cause(monkeypatch, step, value), diverged as caught:
        train_small(iter_save=10, seconds_between_states=0)
    assert caught.value.status == 1
    assert str(RUN.model(last_good)) in str(caught.value)
    assert RUN.saved_steps() == [*range(10, last_good + 1, 10)]
    training = checkpoint.load(RUN.state)["training"]
    assert training["step"] == step - 1
    for parameters in (training["model"], checkpoint.load(RUN.model(last_good))):
        assert all(x.isfinite().all() for x in parameters.values())
    assert not {"nan", "inf"} & {*RUN.metrics.read_text().replace("\n", ",").split(",")}


def sample_validated(m, v):
    return Normal(m, v.sqrt(), validate_args=True).rsample()


def test_the_error_of_torch_distributions_is_reported_as_divergence(monkeypatch):
    """Normal raises a ValueError in the next step, before the loss is looked at."""
    monkeypatch.setattr(utils, "sample_gaussian", sample_validated)
    poisoned = bad_parameter(monkeypatch, 13, torch.nan, index=2)
    with poisoned, pytest.raises(UserError, match=r"diverged.* step 13 "):
        train_small(seconds_between_states=1_000_000)


def test_another_value_error_of_a_solution_is_not_a_divergence(monkeypatch):
    monkeypatch.setattr(utils, "sample_gaussian", lambda m, v: sample_validated(m, -v))
    with pytest.raises(ValueError, match="constraint"):
        train_small()


def test_a_large_learning_rate_diverges_before_the_first_checkpoint():
    huge = TINY._replace(lr=1e30)
    with pytest.raises(UserError, match=r"diverged.* none; .*--lr"):
        train_small(huge, iter_save=1)
    assert RunFolder(huge).saved_steps() == []


# Files that cannot be written.


@pytest.mark.slow
def test_a_full_disk_deletes_nothing_and_once_there_is_room_the_run_ends_in_the_same_bytes(
    run_vae, small, monkeypatch, tmp_path
):
    """The system limits the size of a file: there is room for a model, but not for a state."""
    small = (*small, "--iter_save", 15)
    longer = (*small, "--iter_max", 60)
    assert run_vae(*longer).returncode == 0
    whole = results_in(OF_SMALL.path.rename(tmp_path / "whole"))
    assert run_vae(*small).returncode == 0
    before = files_in(OF_SMALL.path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    try:
        finished = run_vae(*longer, "--resume", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == f"run_vae.py: {OF_SMALL.state}: File too large"
    assert "Warning" not in finished.stderr  # the run does not go on without its files
    after = files_in(OF_SMALL.path)
    assert not list(OF_SMALL.path.glob(".*.tmp"))
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if name.endswith(".pt"))
    assert after["metrics.csv"].startswith(before["metrics.csv"])
    assert run_vae(*longer, "--resume", 1).returncode == 0
    assert results_in(OF_SMALL.path) == whole


@pytest.mark.parametrize("until", [10, 30])
def test_a_refused_save_is_made_up_for_at_the_next_one_and_only_the_last_is_an_error(
    monkeypatch, capsys, tmp_path, until
):
    """Until a step, no file gets its name, as on a network that is away."""
    train_small(iter_save=10)
    whole = results_in(FOLDER.rename(tmp_path / "whole"))
    steps = []

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
    assert until == 30 or results_in(FOLDER) == whole


# A second process.


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_one_is_killed(run_vae, start, script, small):
    first = start(script, *small, "--iter_max", 1_000_000, "--iter_save", 20)
    wait_for(lambda: OF_SMALL.saved_steps() or first.poll() is not None)
    for resume in (0, 1):
        second = run_vae(*small, "--resume", resume)
        assert second.returncode == 1
        assert "another process" in second.stderr
        assert str(OF_SMALL.path) in second.stderr
    assert first.poll() is None
    first.kill()
    first.wait()
    third = run_vae(*small, "--resume", 1, "--iter_max", 1 + state_step(OF_SMALL))
    assert third.returncode == 0, third.stderr
