"""Resuming a run, refusing to resume it, and moving an earlier run aside."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import (
    CPU,
    FOLDER,
    IMAGES,
    RUN,
    STATE,
    TINY,
    change_loss,
    files_in,
    interrupt,
    load_small,
    results_in,
    same_parameters,
    state_step,
    train_small,
)

from codebase import utils
from codebase.bounds import Bounds
from codebase.models import nns
from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder
from codebase.runs.results import Row, read_metrics, write_metrics
from codebase.system.errors import UserError
from codebase.train import train

pytestmark = pytest.mark.usefixtures("place")
ASIDE = FOLDER.with_name(f"{FOLDER.name}.1")


def uninterrupted(settings=TINY, **options):
    """The results of a run without an interruption, whose folder is removed from its place."""
    train_small(settings, **options)
    folder = RunFolder(settings).path
    return results_in(folder.rename(folder.parent.with_name("uninterrupted")))


# The same bytes after an interruption.


def use_difficult_solution(patch):
    """Draw another number of random numbers in each step, and count the steps in an attribute."""

    def sample_gaussian(m, v):
        noise = torch.randn(v.shape)
        while (far := noise.abs() > 1).any():
            noise[far] = torch.randn(int(far.sum()))
        return m + v.sqrt() * noise

    plain = VAE.loss

    def loss(model, x):
        model.calls = getattr(model, "calls", 0) + 1
        loss, summaries = plain(model, x)
        return loss + min(1.0, model.calls / 100) * summaries["gen/kl_z"], summaries

    patch.setattr(utils, "sample_gaussian", sample_gaussian)
    patch.setattr(VAE, "loss", loss)


def test_an_interrupted_and_resumed_run_has_the_same_bytes(monkeypatch):
    use_difficult_solution(monkeypatch)
    settings = TINY._replace(iter_max=110, lr_schedule="linear")
    whole = uninterrupted(settings, iter_save=60)
    folder = RunFolder(settings)
    reached = 0
    for after in (1, 21, 38, 1, 30):  # after the first step, an epoch, and at a checkpoint
        stop = interrupt(settings, after, iter_save=60, resume=True)
        reached += after
        assert f"step {reached};" in str(stop)
        assert state_step(folder) == reached
        torch.randn(7)
    model = train_small(settings, iter_save=60, resume=True)
    assert results_in(folder.path) == whole
    assert same_parameters(model, load_small(settings))


@pytest.mark.parametrize(
    ("earlier", "reached", "later"),  # iter_max and iter_save of the two parts of the run
    [
        ((1000, 100), 12, (12, 100)),  # the end is moved to where the run was interrupted
        ((30, 100), 20, (30, 20)),
        ((20, 20), 20, (30, 20)),  # a complete run is made longer
    ],
)
def test_other_options_save_the_models_that_they_would_have_saved(earlier, reached, later):
    settings = TINY._replace(iter_max=later[0])
    whole = uninterrupted(settings, iter_save=later[1])
    before = TINY._replace(iter_max=earlier[0])
    if reached < earlier[0]:
        interrupt(before, reached, iter_save=earlier[1])
    else:
        train_small(before, iter_save=earlier[1])
    train_small(settings, iter_save=later[1], resume=True)
    assert results_in(FOLDER) == whole


def test_a_run_that_is_killed_in_any_write_ends_in_the_same_bytes(monkeypatch):
    """The writes are the settings, then metrics, state and model of each of two checkpoints."""

    class Killed(BaseException):
        """An exception that the program does not catch, as it cannot catch kill -9."""

    whole, plain = uninterrupted(iter_save=20), os.replace
    for writes, saved in enumerate([0, 1, 2, 3, 4, 4, 4]):
        left = [True] * writes

        def write(*names, left=left):
            if not left:
                raise Killed
            left.pop()
            plain(*names)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", write)
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # the killed clean nothing up
            train_small(iter_save=20)
        files = files_in(FOLDER)
        assert (len(files), sum(name.endswith(".tmp") for name in files)) == (saved + 1, 1)
        train_small(iter_save=20, resume=True)
        assert results_in(FOLDER) == whole
        assert not list(FOLDER.glob(".*.tmp"))
        shutil.rmtree(FOLDER)


def test_rows_from_after_the_state_are_removed():
    """A process that is killed between the two writes leaves such rows."""
    interrupt(after=7)
    write_metrics(RUN, [Row(25, "test", Bounds(3.0, 1.0, 2.0), 1.0)])
    train_small(resume=True)
    assert {row.step for row in read_metrics(RUN)} == {30}


def test_a_shorter_run_is_loaded_from_its_model(capsys):
    trained = train_small(iter_save=10)
    before = files_in(FOLDER)
    capsys.readouterr()
    loaded = train_small(resume=True)
    assert same_parameters(trained, loaded)
    shorter = train_small(TINY._replace(iter_max=20), resume=True)
    assert same_parameters(shorter, load_small(TINY._replace(iter_max=20)))
    assert not same_parameters(shorter, loaded)
    assert capsys.readouterr().out.count("already at step 30\n") == 2
    with pytest.raises(UserError, match=r"10\.pt, .*20\.pt, .*30\.pt; .*--iter_max"):
        train_small(TINY._replace(iter_max=25), resume=True)
    assert files_in(FOLDER) == before


def test_a_state_of_version_1_0_0_is_resumed():
    """It has neither the sums of the files nor the numbers of the modules, and fewer settings."""
    interrupt(after=7)
    state = torch.load(STATE, weights_only=True)
    del state["files"], state["training"]["numbers"], state["settings"]["valid"]
    torch.save(state, STATE)
    train_small(resume=True)
    assert RUN.saved_steps() == [30]


# Refusing to resume.


def refused(settings=TINY):
    """The message of the error that resuming causes; the folder does not change."""
    folder = RunFolder(settings).path
    before = files_in(folder)
    with pytest.raises(UserError) as caught:
        train_small(settings, resume=True)
    assert files_in(folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"nn": "v1"}, {"nn": "tiny"}),
        ({"z": 3, "run": 1}, {"z": 2, "run": 0}),
        ({"lr": 0.002}, {"lr": 0.001}),
        ({"lr_schedule": "linear"}, {"lr_schedule": "constant"}),
        ({"lr_schedule": "linear", "iter_max": 20}, {"lr_schedule": "linear", "iter_max": 30}),
    ],
)
def test_a_state_from_other_settings_is_refused(then, now):
    other, settings = TINY._replace(**then), TINY._replace(**now)
    interrupt(other)
    RunFolder(other).path.rename(RunFolder(settings).path)
    sentence = refused(settings)
    for name in then:
        changed = f"{name} was {then[name]} and is {now[name]}"
        assert (changed in sentence) == (then[name] != now[name])
    assert "--resume 1" in sentence


def test_a_state_from_changed_networks_is_not_called_damaged(monkeypatch):
    """A student may have changed the file of the networks."""
    interrupt()
    plain = nns.tiny.Encoder
    monkeypatch.setattr(nns.tiny, "Encoder", lambda z_dim: plain(z_dim + 1))
    sentence = refused()
    assert f"{STATE} does not fit" in sentence and "damaged" not in sentence


def in_another_order(optimizer):
    """The state of an optimizer whose parameters are in another order."""
    averages = optimizer["state"]
    return optimizer | {"state": dict(zip(averages, [*averages.values()][::-1], strict=True))}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("settings", lambda _: [1]),
        ("window", lambda _: torch.zeros(1)),
        ("training", lambda training: training | {"step": "x"}),
        ("training", lambda training: training | {"step": -3}),
        ("training", lambda training: training | {"numbers": {"": {"loss": 3}}}),
        ("training", lambda training: training | {"numbers": {"": {"calls": "many"}}}),
        (
            "training",
            lambda training: training | {"optimizer": in_another_order(training["optimizer"])},
        ),
    ],
)
def test_a_state_of_other_types_or_of_parameters_in_another_order_is_refused(key, change):
    interrupt()
    state = torch.load(STATE, weights_only=True)
    torch.save(state | {key: change(state[key])}, STATE)
    assert refused().startswith(str(STATE))


@pytest.mark.parametrize(
    "damage",
    [
        STATE.unlink,
        lambda: STATE.write_bytes(b""),
        lambda: STATE.write_bytes(RUN.model(30).read_bytes()),
    ],
    ids=["lost", "empty", "a model"],
)
def test_a_state_that_is_lost_or_damaged_is_refused(damage):
    train_small()
    damage()
    assert STATE.name in refused()


def test_a_damaged_file_of_metrics_is_refused_and_may_be_deleted():
    interrupt(TINY._replace(iter_max=200), after=150)
    RUN.metrics.write_text("nonsense\n" + RUN.metrics.read_text())
    assert str(RUN.metrics) in refused(TINY._replace(iter_max=200))
    RUN.metrics.unlink()
    train_small(TINY._replace(iter_max=200), resume=True)
    assert [row.step for row in read_metrics(RUN)] == [200, 200, 200]


def test_a_folder_in_which_another_process_trains_is_left_unchanged():
    train_small()
    before = files_in(FOLDER.parent)
    with RUN.lock():
        for resume in (False, True):
            with pytest.raises(UserError, match="another process"):
                train_small(resume=resume)
    assert files_in(FOLDER.parent) == before


# An earlier run.


@pytest.mark.parametrize(
    ("fault", "kept"), [(lambda *_: 1 / 0, FOLDER), (lambda loss, _: loss + torch.nan, ASIDE)]
)
def test_a_run_that_fails_at_once_deletes_nothing_of_an_earlier_one(monkeypatch, fault, kept):
    train_small()
    before = files_in(FOLDER)
    change_loss(monkeypatch, fault)
    for _ in range(2):
        with pytest.raises((ZeroDivisionError, UserError)):
            train_small(seconds_between_states=0)
    assert files_in(kept) == before
    assert ASIDE.exists() == (kept == ASIDE)
    # A run that saved nothing leaves its folder to the next one.
    assert not FOLDER.with_name(f"{FOLDER.name}.2").exists()


def test_too_large_a_batch_is_refused_before_a_run_is_moved_aside():
    train_small()
    before = files_in(FOLDER.parent)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"--batch_size.* 9") as caught:
            train(TINY, replace(IMAGES, train=IMAGES.train[:9]), CPU, resume=resume)
        assert caught.value.status == 2
    assert files_in(FOLDER.parent) == before
    train(TINY._replace(iter_max=1), replace(IMAGES, train=IMAGES.train[:10]), CPU)
    assert RUN.saved_steps() == [1]
