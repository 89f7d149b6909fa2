"""What a run leaves in its folder and on the screen, and when it does."""

import errno
import os
import re
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from training import (
    CPU,
    FOLDER,
    IMAGES,
    RUN,
    STATE,
    TINY,
    after_each_step,
    bounds_in,
    change_loss,
    clock_of_steps,
    interrupt,
    load_small,
    results_in,
    same_parameters,
    settle,
    state_step,
    train_small,
)

from codebase import evaluate
from codebase.data import batch_indices
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.results import read_metrics
from codebase.system import streams
from codebase.train import Training


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    with clock_of_steps(monkeypatch) as clock:
        yield clock


# The models.


def test_models_are_saved_every_iter_save_steps_and_at_the_end(capsys):
    parameters = {}

    def keep(step, adam):
        parameters[step] = [p.detach().clone() for p in adam.param_groups[0]["params"]]

    with after_each_step(keep):
        train_small(iter_save=20)
    assert RUN.saved_steps() == [20, 30]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"Saved to {RUN.model(step)}" for step in (20, 30)]
    for step in (20, 30):
        saved = load_small(TINY._replace(iter_max=step))
        assert all(map(torch.equal, saved.parameters(), parameters[step]))


def test_there_are_no_other_files():
    train_small()
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {"settings.json", "model-00030.pt", "metrics.csv", "training-state.pt"}


# The rows.


def test_the_rows_of_training_are_means_over_a_hundred_steps():
    settings = TINY._replace(iter_max=250)
    train_small(settings)
    training, bounds = Training(settings, CPU), []
    plain = training.model.negative_elbo_bound

    def bound(x):
        bounds.append(plain(x))
        return bounds[-1]

    training.model.negative_elbo_bound = bound
    for batch in islice(batch_indices(len(IMAGES.train), 10, 0, CPU), 250):
        training.take_step(IMAGES.train[batch])
    bounds = np.array([[value.item() for value in values] for values in bounds])
    rows = bounds_in(FOLDER, "train")
    assert rows.keys() == {100, 200}
    assert rows[100] == pytest.approx(bounds[:100].mean(0), rel=1e-5)
    assert rows[200] == pytest.approx(bounds[100:200].mean(0), rel=1e-5)
    assert same_parameters(training.model, load_small(settings))


def test_a_mean_includes_the_steps_before_an_interruption(tmp_path):
    settings = TINY._replace(iter_max=200)
    train_small(settings)
    whole = bounds_in(FOLDER.rename(tmp_path / "whole"), "train")
    interrupt(settings, after=150)
    train_small(settings, resume=True)
    assert bounds_in(FOLDER, "train") == whole


def check_test_rows(iter_max, iter_save, steps):
    """The rows on test images are from these steps, and equal the bounds of the saved models."""
    settings = TINY._replace(iter_max=iter_max)
    train_small(settings, iter_save=iter_save)
    subset, everything = (bounds_in(FOLDER, images) for images in ("test", "all test"))
    assert list(subset) == list(everything) == steps
    for step in RUN.saved_steps():
        measured = evaluate.measure(load_small(settings._replace(iter_max=step)), IMAGES)
        assert (subset[step], everything[step]) == (measured.subset[:3], measured.all[:3])
    return subset, everything


def test_the_rows_on_test_images_are_bounds_of_the_models():
    often = check_test_rows(120, 50, [50, 100, 120])
    seldom = check_test_rows(120, 110, [100, 110, 120])
    assert seldom[0][100] == often[0][100]
    assert seldom[1][100] == often[1][100]


@pytest.mark.slow
def test_the_rows_on_test_images_become_rare():
    check_test_rows(2100, 2100, [100, 200, 500, 1000, 2000, 2100])


def test_the_rows_are_in_the_order_of_the_steps():
    train_small(TINY._replace(iter_max=200), iter_save=60)
    assert [row[:2] for row in read_metrics(RUN)] == [
        *((60, images) for images in ("test", "all test")),
        *((100, images) for images in ("train", "test", "all test")),
        *((120, images) for images in ("test", "all test")),
        *((180, images) for images in ("test", "all test")),
        *((200, images) for images in ("train", "test", "all test")),
    ]


def test_a_weight_on_the_kl_is_minimized_and_not_logged(monkeypatch):
    settings, kl = TINY._replace(iter_max=100), []
    for weight in (1, 20):
        change_loss(monkeypatch, lambda loss, kl, weight=weight: loss + (weight - 1) * kl)
        train_small(settings)
        nelbo, *parts = bounds_in(FOLDER, "train")[100]
        assert nelbo == pytest.approx(sum(parts), rel=1e-5)
        found = evaluate.measure(load_small(settings), IMAGES)
        assert bounds_in(FOLDER, "test")[100] == found.subset[:3]
        kl.append(parts[0])
    assert kl[1] < 0.5 * kl[0]


@pytest.mark.parametrize("iter_max", [30, 100])  # at 100, two reasons to measure coincide
def test_a_run_is_measured_once_at_its_end_and_the_report_has_these_bounds(
    run_vae, small, monkeypatch, iter_max
):
    passes, plain = [], VAE.negative_elbo_bound

    def bound(model, x):
        passes.append(torch.is_grad_enabled())
        return plain(model, x)

    monkeypatch.setattr(VAE, "negative_elbo_bound", bound)
    finished = run_vae(*small, "--iter_max", iter_max)
    assert finished.returncode == 0, finished.stderr
    # Two passes over the subset, and all test images in three groups.
    assert passes.count(False) == evaluate.SUBSET_PASSES + 3
    [folder] = FOLDER.parent.glob("model*")
    for images in ("test", "all test"):
        nelbo, kl, rec = bounds_in(folder, images)[iter_max]
        assert f"NELBO: {nelbo:.2f}" in finished.stdout
        assert f"KL: {kl:.2f}. REC: {rec:.2f}  (" in finished.stdout


@pytest.mark.parametrize("until", [10, 30])
def test_a_refused_save_is_made_up_for_at_the_next_one_and_only_the_last_is_an_error(
    monkeypatch, capsys, until
):
    """Until a step, no file gets its name, as on a network that is away."""
    train_small(iter_save=10)
    replace = os.replace
    with after_each_step(lambda *_: steps.append(1)), monkeypatch.context() as patch:
        steps = []

        def refuse(source, target):
            if 1 < len(steps) <= until:
                raise OSError(errno.ESTALE, "Stale file handle", target)
            replace(source, target)

        patch.setattr(os, "replace", refuse)
        patch.setattr(time, "sleep", lambda _: None)
        with nullcontext() if until == 10 else pytest.raises(OSError, match="Stale"):
            train_small(iter_save=10)
    assert "Warning: " in capsys.readouterr().err
    if until == 10:
        assert RUN.saved_steps() == [10, 20, 30]
        assert results_in(FOLDER) == results_in(Path(f"{FOLDER}.1"))


# The clock.


def test_a_row_has_the_seconds_of_training_until_its_step(clock):
    settings = TINY._replace(iter_max=210)
    interrupt(settings, after=105)
    clock.now += 10_000
    interrupt(settings, after=5, resume=True)
    train_small(settings, resume=True)
    assert {row.step: row.seconds for row in read_metrics(RUN)} == {100: 100, 200: 200, 210: 210}
    clock.now += 10_000
    train_small(settings, resume=True)
    assert [row.seconds for row in read_metrics(RUN) if row.step == 210] == [210, 210]
    assert checkpoint.load(STATE)["seconds"] == 210


def test_a_state_is_saved_every_minute(clock):
    states = {}

    def look(step, _):
        states[step] = state_step()

    with after_each_step(look):
        interrupt(TINY._replace(iter_max=1000), after=125)
    assert [step for step in states if states[step] != states.get(step - 1, 0)] == [61, 121]
    assert (states[61], states[121]) == (60, 120)


def test_seconds_between_states_sets_how_often_a_state_is_saved(clock):
    states = set()
    clock.step = 0.125
    with after_each_step(lambda *_: states.add(state_step())):
        train_small(seconds_between_states=1.75)
    assert states == {0, 14, 28}


def bars(capsys):
    """The steps that the bar has shown, and the losses beside them."""
    lines = re.split("[\r\n]+", capsys.readouterr().err)
    found = (re.match(r"run 0: .*\| (\d+)/30 \[.*loss=(\S+?)\]", line) for line in lines)
    return dict((int(match[1]), match[2]) for match in found if match)


def test_the_bar_shows_the_loss_four_times_each_second(clock, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(streams, "is_interactive", lambda: True)
    losses = iter(range(1000))
    change_loss(monkeypatch, lambda loss, _: 0 * loss + 100.0 * next(losses))
    clock.step = 0.125
    train_small()
    assert bars(capsys) == {step: f"{100 * (step - 1):.1f}" for step in range(2, 31, 2)}
    clock.step = 0.5
    interrupt(after=7)
    assert list(bars(capsys)) == [*range(1, 8)]
    train_small(resume=True)
    resumed = capsys.readouterr()
    assert re.search(r"run 0:  23%\|.*\| 7/30 \[", resumed.err)
    assert "Resuming at step 7\n" in resumed.out


def test_a_file_gets_a_line_every_half_minute_and_at_each_checkpoint(clock, capsys):
    clock.step = 5
    train_small(iter_save=10)
    lines = capsys.readouterr().err.splitlines()
    steps = [int(re.match(r"run 0: .*\| (\d+)/30 \[.*loss=\S+\]$", line)[1]) for line in lines]
    assert steps == [6, 10, 16, 20, 26, 30]
