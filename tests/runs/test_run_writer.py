"""What a run leaves in its folder and on the screen, and when it does."""

import time
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from training import (
    IMAGES,
    RUN,
    TINY,
    after_each_step,
    bounds_in,
    change_loss,
    interrupt,
    load_small,
    same_parameters,
    train_small,
    uninterrupted,
)

from codebase import evaluate
from codebase.runs import checkpoint, run_writer
from codebase.runs.results import read_metrics
from codebase.train import Training

pytestmark = pytest.mark.usefixtures("place")
LONGER = TINY._replace(iter_max=210)


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
    """They are those with which shorter runs end."""
    shorter = uninterrupted(TINY._replace(iter_max=20))
    capsys.readouterr()
    model = train_small(iter_save=20)
    saved = [RUN.model(20), RUN.model(30)]
    assert {*RUN.path.iterdir()} == {*saved, RUN.settings_file, RUN.metrics, RUN.state}
    assert capsys.readouterr().out.splitlines() == [f"Saved to {path}" for path in saved]
    assert saved[0].read_bytes() == shorter[saved[0].name]
    assert same_parameters(model, load_small())


def test_the_rows_of_training_are_means_over_a_hundred_steps(monkeypatch):
    take_step, losses = Training.take_step, []

    def kept(*given):
        losses.append(take_step(*given))
        return losses[-1]

    monkeypatch.setattr(Training, "take_step", kept)
    train_small(LONGER)
    means = torch.stack(losses)[:200, 1:].view(2, 100, 3).mean(1).tolist()
    expected = {100 * i: pytest.approx(row, rel=1e-5) for i, row in enumerate(means, start=1)}
    assert bounds_in("train") == expected


def test_the_rows_on_test_images_are_bounds_of_the_models():
    train_small(LONGER, iter_save=60)
    steps = [60, 100, 120, 180, 200, 210]
    assert [*bounds_in("test")] == [*bounds_in("all test")] == steps
    for step in RUN.saved_steps():
        measured = evaluate.measure(load_small(TINY._replace(iter_max=step)), IMAGES)
        assert bounds_in("test")[step] == measured.subset[:3]
        assert bounds_in("all test")[step] == measured.all[:3]
    rare = [step for step in range(10_001) if step in run_writer.MEASURED_STEPS]
    assert rare == [100, 200, 500, 1000, 2000, 5000, 10_000]


def test_a_row_has_the_seconds_of_training_until_its_step(clock):
    interrupt(LONGER, after=105)
    clock.now += 10_000
    interrupt(LONGER, after=5, resume=True)
    for _ in range(2):
        train_small(LONGER, resume=True)
        assert all(row.seconds == row.step for row in read_metrics(RUN))
        clock.now += 10_000
    assert checkpoint.load(RUN.state)["seconds"] == 210


@pytest.mark.parametrize(("options", "every"), [({}, 60), ({"seconds_between_states": 13.5}, 14)])
def test_a_state_is_saved_every_minute_or_as_often_as_asked(clock, options, every, monkeypatch):
    steps = []

    def save_run(folder, rows, state, models):
        steps.append(state["training"]["step"])

    monkeypatch.setattr(checkpoint, "save_run", save_run)
    interrupt(TINY._replace(iter_max=1000), after=125, **options)
    assert steps == [*range(every, 125, every), 125]


def test_the_bar_begins_at_the_step_of_the_run_and_shows_losses(clock, capsys, monkeypatch):
    """It shows a step after 30 seconds, and each checkpoint."""
    begun, shown, losses = [], [], count()

    def progress(*numbers):
        begun.append(numbers)
        return nullcontext((lambda *numbers: shown.append(numbers), 30))

    monkeypatch.setattr(run_writer, "progress", progress)
    change_loss(monkeypatch, lambda loss, _: 0 * loss + next(losses))
    clock.step = 5
    train_small(iter_save=10)
    assert shown == [(step, step - 1) for step in (6, 10, 16, 20, 26, 30)]
    interrupt(after=7)
    train_small(resume=True)
    assert begun == [(0, 0, 30), (0, 0, 30), (0, 7, 30)]
    assert "Resuming at step 7\n" in capsys.readouterr().out
