"""What a run leaves in its folder and on the screen, and when it does."""

import re
import time
from itertools import islice
from types import SimpleNamespace

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
    interrupt,
    load_small,
    same_parameters,
    train_small,
)

from codebase import evaluate
from codebase.data import batch_indices
from codebase.runs import checkpoint
from codebase.runs.results import read_metrics
from codebase.runs.run_writer import MEASURED_STEPS
from codebase.system import streams
from codebase.train import Training

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def clock(monkeypatch):
    """A clock on which each training step takes `step` seconds."""
    clock = SimpleNamespace(now=1000.0, step=1.0)

    def tick(*_):
        clock.now += clock.step

    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    with after_each_step(tick):
        yield clock


def test_models_are_saved_every_iter_save_steps_and_at_the_end(capsys):
    parameters = {}

    def keep(step, adam):
        parameters[step] = [p.detach().clone() for p in adam.param_groups[0]["params"]]

    with after_each_step(keep):
        train_small(iter_save=20)
    assert {path.name for path in FOLDER.iterdir()} == {
        *("settings.json", "metrics.csv", "training-state.pt"),
        *("model-00020.pt", "model-00030.pt"),
    }
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"Saved to {RUN.model(step)}" for step in (20, 30)]
    for step in (20, 30):
        saved = load_small(TINY._replace(iter_max=step))
        assert all(map(torch.equal, saved.parameters(), parameters[step]))


def test_the_rows_of_training_are_means_over_a_hundred_steps():
    settings = TINY._replace(iter_max=210)
    train_small(settings)
    training, bounds = Training(settings, CPU), []
    plain = training.model.negative_elbo_bound

    def bound(x):
        bounds.append(plain(x))
        return bounds[-1]

    training.model.negative_elbo_bound = bound
    for batch in islice(batch_indices(len(IMAGES.train), 10, 0, CPU), 210):
        training.take_step(IMAGES.train[batch])
    bounds = np.array([[value.item() for value in values] for values in bounds])
    rows = bounds_in("train")
    assert rows.keys() == {100, 200}
    assert rows[100] == pytest.approx(bounds[:100].mean(0), rel=1e-5)
    assert rows[200] == pytest.approx(bounds[100:200].mean(0), rel=1e-5)
    assert same_parameters(training.model, load_small(settings))


def test_the_rows_on_test_images_are_bounds_of_the_models():
    settings = TINY._replace(iter_max=210)
    train_small(settings, iter_save=60)
    assert [row[:2] for row in read_metrics(RUN)] == [
        *((60, images) for images in ("test", "all test")),
        *((100, images) for images in ("train", "test", "all test")),
        *((120, images) for images in ("test", "all test")),
        *((180, images) for images in ("test", "all test")),
        *((200, images) for images in ("train", "test", "all test")),
        *((210, images) for images in ("test", "all test")),
    ]
    for step in RUN.saved_steps():
        measured = evaluate.measure(load_small(settings._replace(iter_max=step)), IMAGES)
        assert bounds_in("test")[step] == measured.subset[:3]
        assert bounds_in("all test")[step] == measured.all[:3]
    rare = [step for step in range(10_001) if step in MEASURED_STEPS]
    assert rare == [100, 200, 500, 1000, 2000, 5000, 10_000]


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


@pytest.mark.parametrize(
    ("seconds", "options", "expected"),
    [
        (1, {}, [60, 120]),  # every minute
        (0.125, {"seconds_between_states": 1.75}, [*range(14, 125, 14)]),
    ],
)
def test_a_state_is_saved_every_minute_or_as_often_as_asked(clock, seconds, options, expected):
    states = {}  # the step before which each state was saved
    clock.step = seconds

    def look(step, _):
        if STATE.exists():
            states.setdefault(STATE.read_bytes(), step)

    with after_each_step(look):
        interrupt(TINY._replace(iter_max=1000), after=125, **options)
    assert [step - 1 for step in states.values()] == expected


def steps_shown(text):
    """The steps that the bar has shown, and the losses beside them."""
    found = re.findall(r"^run 0: .*\| (\d+)/30 \[.*loss=(\S+?)\]\s*$", text, re.MULTILINE)
    return {int(step): float(loss) for step, loss in found}


@pytest.mark.parametrize(
    ("is_terminal", "seconds", "expected"),
    [
        (True, 0.125, [*range(2, 31, 2)]),  # four times each second
        (False, 5, [6, 10, 16, 20, 26, 30]),  # every half minute, and at each checkpoint
    ],
)
def test_the_bar_shows_the_step_and_its_loss(
    clock, capsys, monkeypatch, is_terminal, seconds, expected
):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(streams, "is_interactive", lambda: is_terminal)
    losses = iter(range(1000))
    change_loss(monkeypatch, lambda loss, _: 0 * loss + 100.0 * next(losses))
    clock.step = seconds
    train_small(iter_save=30 if is_terminal else 10)
    shown = capsys.readouterr().err.replace("\r", "\n")
    assert steps_shown(shown) == {step: 100 * (step - 1) for step in expected}
    assert is_terminal or shown.count("\n") == len(expected)
    interrupt(after=7)
    capsys.readouterr()
    train_small(resume=True)
    resumed = capsys.readouterr()
    assert (" 23%|" in resumed.err) == is_terminal  # a resumed bar begins at its step
    assert "Resuming at step 7\n" in resumed.out
