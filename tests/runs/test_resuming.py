"""Resuming a run, refusing to resume it, and moving an earlier run aside."""

import json
import os
import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from training import (
    RUN,
    TINY,
    change_loss,
    files_in,
    interrupt,
    load_small,
    results_in,
    same_parameters,
    state_step,
    train_small,
    uninterrupted,
)

from codebase import utils
from codebase.models import nns
from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder
from codebase.system.errors import UserError

pytestmark = pytest.mark.usefixtures("place")
LINEAR = TINY._replace(lr_schedule="linear")


def test_an_interrupted_and_resumed_run_has_the_same_bytes(monkeypatch):
    """The solution needs random numbers unevenly, and counts the steps in an attribute."""
    plain = VAE.loss

    def sample_gaussian(m, v):
        torch.randn(int(torch.randint(9, ())))
        return m + v.sqrt() * torch.randn(v.shape)

    def loss(model, x):
        model.calls = getattr(model, "calls", 0) + 1
        loss, summaries = plain(model, x)
        return loss + min(1.0, model.calls / 100) * summaries["gen/kl_z"], summaries

    monkeypatch.setattr(utils, "sample_gaussian", sample_gaussian)
    monkeypatch.setattr(VAE, "loss", loss)
    settings = LINEAR._replace(iter_max=110)
    whole = uninterrupted(settings, iter_save=60)
    folder, steps = RunFolder(settings), []
    for after in (1, 21, 38, 1, 30):  # after the first step, an epoch, and at a checkpoint
        interrupt(settings, after, iter_save=60, resume=True)
        steps.append(state_step(folder))
        torch.randn(7)
    assert steps == [1, 22, 60, 61, 91]
    model = train_small(settings, iter_save=60, resume=True)
    assert results_in(folder.path) == whole
    assert same_parameters(model, load_small(settings))


@pytest.mark.parametrize(("iter_max", "reached"), [(12, 12), (30, 20)])
def test_other_options_save_the_models_that_they_would_have_saved(iter_max, reached):
    """The end is moved to where the run was interrupted, or a model is due there."""
    settings = TINY._replace(iter_max=iter_max)
    whole = uninterrupted(settings, iter_save=20)
    interrupt(TINY._replace(iter_max=1000), reached, iter_save=100)
    train_small(settings, iter_save=20, resume=True)
    assert results_in(RUN.path) == whole


@pytest.mark.slow
def test_a_run_that_is_killed_in_any_write_ends_in_the_same_bytes(monkeypatch):
    """The writes are the settings, then metrics, state and model of each of two checkpoints.

    The first checkpoint has a row that only the steps before it can give.
    """
    settings = TINY._replace(iter_max=105)

    whole, plain = uninterrupted(settings, iter_save=100), os.replace

    class Killed(BaseException):
        """An exception that the program does not catch, as it cannot catch kill -9."""

    def kill(*_):
        raise Killed

    for writes in range(7):
        calls = chain([plain] * writes, [kill])
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", lambda *names, calls=calls: next(calls)(*names))
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # the killed clean nothing up
            train_small(settings, iter_save=100)
        assert len([*RUN.path.glob(".*.tmp")]) == 1
        train_small(settings, iter_save=100, resume=True)
        assert results_in(RUN.path) == whole
        assert not list(RUN.path.glob(".*.tmp"))
        shutil.rmtree(RUN.path)


def test_a_shorter_run_is_loaded_from_its_model(capsys):
    trained = train_small(iter_save=10)
    before = files_in(RUN.path)
    assert same_parameters(trained, train_small(resume=True))
    shorter = TINY._replace(iter_max=20)
    assert same_parameters(train_small(shorter, resume=True), load_small(shorter))
    assert capsys.readouterr().out.count("already at step 30\n") == 2
    with pytest.raises(UserError, match=r"10\.pt, .*20\.pt, .*30\.pt; .*--iter_max"):
        train_small(TINY._replace(iter_max=25), resume=True)
    assert files_in(RUN.path) == before


def change_state(change):
    """Change the file of a state by a function of its content."""
    state = torch.load(RUN.state, weights_only=True)
    change(state)
    torch.save(state, RUN.state)


def test_a_state_of_version_1_0_0_is_resumed():
    """It has neither the sums of the files nor the numbers of the modules, and fewer settings."""

    def age(state):
        del state["files"], state["training"]["numbers"], state["settings"]["valid"]

    interrupt(after=7)
    change_state(age)
    train_small(resume=True)
    assert RUN.saved_steps() == [30]


def refused(settings=TINY):
    """The message of the error that resuming causes; the folder does not change."""
    folder = RunFolder(settings).path
    before = files_in(folder)
    with pytest.raises(UserError) as caught:
        train_small(settings, resume=True)
    assert files_in(folder) == before and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("other", "settings", "changes"),
    [
        (TINY._replace(z=3, run=1), TINY, "z was 3 and is 2, run was 1 and is 0"),
        (LINEAR._replace(iter_max=20), LINEAR, "iter_max was 20 and is 30"),
    ],
)
def test_a_state_from_other_settings_is_refused(other, settings, changes):
    interrupt(other)
    RunFolder(other).path.rename(RunFolder(settings).path)
    sentence = refused(settings)
    assert f"settings: {changes}; " in sentence and "--resume 1" in sentence


def test_a_changed_file_of_code_is_not_resumed_and_warned_of(monkeypatch, tmp_path, capsys):
    train_small()
    (start,) = json.loads(RUN.settings_file.read_text())["starts"]
    modules = {"codebase.utils", "codebase.models.vae", "codebase.models.nns.tiny"}
    assert start["files"].keys() == modules
    load_small()
    assert "Warning" not in capsys.readouterr().err
    networks = tmp_path / "tiny.py"
    networks.write_text("# another activation\n")
    monkeypatch.setattr(nns.tiny, "__file__", str(networks))
    assert refused().startswith("codebase.models.nns.tiny changed since ")
    load_small()
    assert "Warning: codebase.models.nns.tiny changed since " in capsys.readouterr().err


def reverse_parameters(state):
    """Give each parameter the averages of another one."""
    averages = state["training"]["optimizer"]["state"]
    averages |= dict(zip(averages, reversed([*averages.values()]), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(settings=[1]),
        lambda state: state.update(window=torch.zeros(1)),
        lambda state: state["training"].update(step=-3),
        lambda state: state["training"]["numbers"].update({"": {"loss": 3}}),
        lambda state: state["training"]["numbers"].update({"": {"calls": "many"}}),
        reverse_parameters,
    ],
)
def test_a_state_of_other_types_or_of_parameters_in_another_order_is_refused(change):
    interrupt()
    change_state(change)
    sentence = refused()
    assert sentence.startswith(str(RUN.state)) and "damaged" not in sentence


def test_a_state_that_is_lost_or_damaged_is_refused():
    train_small()
    for damage in (RUN.state.unlink, lambda: RUN.state.write_bytes(b"")):
        damage()
        assert RUN.state.name in refused()


@pytest.mark.parametrize("diverges", [True, False])
def test_a_run_that_fails_at_once_deletes_nothing_of_an_earlier_one(monkeypatch, diverges):
    """A run that saved nothing leaves its folder to the next one."""
    train_small()
    before = files_in(RUN.path)
    change_loss(monkeypatch, lambda loss, _: loss + torch.nan if diverges else 1 / 0)
    for _ in range(2):
        with pytest.raises((UserError, ZeroDivisionError)):
            train_small()
    aside = RUN.path.with_name(f"{RUN.path.name}.1")
    assert files_in(aside if diverges else RUN.path) == before
    assert len([*RUN.path.parent.glob("model=*")]) == 1 + diverges
