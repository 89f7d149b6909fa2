"""Resuming: what a run goes on from, and what it refuses."""

import csv
import signal

import pytest
import torch
from training import Signal, short_run

from codebase import checkpoint, step, train
from codebase.checkpoint import model_path, saved_steps, state_path
from codebase.errors import CheckpointError, Interrupted


def test_a_resumed_run_ends_in_the_same_bytes(synthetic_images, tmp_path, monkeypatch):
    images = synthetic_images._replace(train=synthetic_images.train[:1000])  # epochs of ten steps
    options = dict(iter_max=230, iter_save=50, lr_schedule="linear")
    short_run(images, tmp_path / "whole", **options)
    for k in (1, 50, 104):
        Signal(monkeypatch, signal.SIGTERM, k)
        with pytest.raises(Interrupted, match=r"--resume 1 goes on") as stop:
            short_run(images, tmp_path / "parts", resume=True, **options)
        assert stop.value.signal == signal.SIGTERM
        monkeypatch.undo()
    short_run(images, tmp_path / "parts", resume=True, **options)
    for number in (50, 100, 150, 200, 230):
        whole, parts = (model_path(tmp_path / name, number) for name in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    whole, parts = ((tmp_path / name / "metrics.csv").read_text() for name in ("whole", "parts"))
    assert whole == parts
    rows = list(csv.DictReader(whole.splitlines()))
    assert [int(row["step"]) for row in rows if row["images"] == "train"] == [100, 200]
    assert [int(row["step"]) for row in rows if row["images"] == "test"] == [50, 100, 150, 200, 230]
    for row in rows:
        assert float(row["NELBO"]) == pytest.approx(float(row["KL"]) + float(row["REC"]), rel=1e-5)


def test_a_complete_run_is_only_loaded(synthetic_images, tmp_path, monkeypatch):
    trained = short_run(synthetic_images, tmp_path)
    monkeypatch.setattr(step, "binarize", None)  # a step would fail
    loaded = short_run(synthetic_images, tmp_path, resume=True)
    for a, b in zip(trained.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_constant_run_may_be_made_longer(synthetic_images, tmp_path):
    short_run(synthetic_images, tmp_path / "a", iter_max=20)
    short_run(synthetic_images, tmp_path / "a", iter_max=30, resume=True)
    short_run(synthetic_images, tmp_path / "b", iter_max=30)
    a, b = (model_path(tmp_path / name, 30).read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"lr": 2e-3}, "lr was 0.001 and is 0.002"),
        ({"run": 1}, "run was 0 and is 1"),
        ({"z": 5}, "z was 4 and is 5"),
        ({"dataset": "mnist"}, "dataset was synthetic and is mnist"),
        ({"lr_schedule": "linear"}, "lr_schedule was constant and is linear"),
    ],
)
def test_resuming_with_other_settings_is_refused(synthetic_images, tmp_path, changed, difference):
    short_run(synthetic_images, tmp_path, iter_max=2)
    with pytest.raises(CheckpointError, match=difference):
        short_run(synthetic_images, tmp_path, resume=True, **changed)


def test_a_linear_run_cannot_be_made_longer(synthetic_images, tmp_path):
    short_run(synthetic_images, tmp_path, iter_max=2, lr_schedule="linear")
    with pytest.raises(CheckpointError, match="iter_max was 2 and is 30"):
        short_run(synthetic_images, tmp_path, lr_schedule="linear", resume=True)


def test_nothing_to_resume_is_said(synthetic_images, tmp_path, capsys):
    short_run(synthetic_images, tmp_path, resume=True)
    assert "Nothing to resume" in capsys.readouterr().out
    assert saved_steps(tmp_path) == [30]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"nonsense",
        {"optimizer": {}},
        {"step": None},
        {"stale": ["5"]},
        {"metrics": [(1, "train")]},
        {"window": torch.zeros(4)},
        {"settings": {}},
        {"pixels": torch.zeros(3)},
    ],
)
def test_a_damaged_training_state_is_refused(synthetic_images, tmp_path, damage):
    short_run(synthetic_images, tmp_path, iter_max=2)
    path = state_path(tmp_path)
    if isinstance(damage, dict):
        checkpoint.save(checkpoint.load(path) | damage, path)
    else:
        path.write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"training-state\.pt"):
        short_run(synthetic_images, tmp_path, resume=True)
    assert saved_steps(tmp_path) == [2]


def test_the_state_is_saved_between_checkpoints(synthetic_images, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SECONDS_BETWEEN_STATES", 0)
    steps = []
    save = checkpoint.save

    def recording_save(content, path):
        if path == state_path(tmp_path):
            steps.append(content["step"])
        save(content, path)

    monkeypatch.setattr(checkpoint, "save", recording_save)
    short_run(synthetic_images, tmp_path, iter_max=400)
    assert len(steps) > 1
    assert steps[-1] == 400
