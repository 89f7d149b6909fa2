"""Training: batches, determinism, checkpoints, resuming, and that it learns."""

import csv
import os
import signal

import pytest
import torch

from codebase import checkpoint, evaluate, step, train
from codebase.checkpoint import model_path, saved_steps, state_path
from codebase.data import load_mnist
from codebase.errors import CheckpointError, DivergenceError, Interrupted


def short_run(images, folder, iter_save=1000, resume=False, **settings):
    settings = step.Settings(
        **dict(z=4, run=0, iter_max=30, lr=1e-3, lr_schedule="constant", dataset="synthetic")
        | settings
    )
    model = step.new_model(settings.z, settings.run)
    train.train(model, images, folder, settings, iter_save=iter_save, resume=resume)
    return model


def test_the_same_run_gives_the_same_bytes(synthetic_images, tmp_path):
    for name, run in [("a", 0), ("b", 0), ("c", 1)]:
        torch.randn(7)  # the global random state has no part in it
        short_run(synthetic_images, tmp_path / name, run=run)
    a, b, c = (model_path(tmp_path / name, 30).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_training_leaves_the_global_random_state(synthetic_images, tmp_path):
    before = torch.get_rng_state()
    short_run(synthetic_images, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoints_come_every_iter_save_and_at_the_end(synthetic_images, tmp_path, capsys):
    short_run(synthetic_images, tmp_path, iter_max=25, iter_save=10)
    assert saved_steps(tmp_path) == [10, 20, 25]
    assert f"Saved to {model_path(tmp_path, 25)}\n" in capsys.readouterr().out


def test_a_new_run_replaces_the_old_files_only_when_it_has_one(
    synthetic_images, tmp_path, capsys, monkeypatch
):
    short_run(synthetic_images, tmp_path, iter_max=20, iter_save=10)
    assert "Deleting" not in capsys.readouterr().out

    def failing_save(model, path):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_model", failing_save)
    with pytest.raises(OSError, match="full"):
        short_run(synthetic_images, tmp_path, run=1, iter_max=15)
    assert saved_steps(tmp_path) == [10, 20]
    monkeypatch.undo()
    capsys.readouterr()
    short_run(synthetic_images, tmp_path, run=1, iter_max=15)
    assert saved_steps(tmp_path) == [15]
    assert capsys.readouterr().out.startswith(f"Deleting existing path: {tmp_path}\n")


def test_training_learns_the_synthetic_digits(synthetic_images, tmp_path):
    x = evaluate.report_images(synthetic_images)
    before = evaluate.bounds(step.new_model(4, 0), x, 10).nelbo
    model = short_run(synthetic_images, tmp_path, iter_max=300)
    assert before > 500
    assert evaluate.bounds(model, x, 10).nelbo < 180


def test_three_thousand_steps_on_mnist_end_below_110(mnist_dir, tmp_path):
    images = load_mnist(mnist_dir)
    model = short_run(images, tmp_path, z=10, iter_max=3000, dataset="mnist")
    assert evaluate.bounds(model, evaluate.all_images(images), 1).nelbo < 110


class Signal:
    """Sends this process a signal at the k-th training step."""

    def __init__(self, monkeypatch, number, k):
        self.number, self.left, self.binarize = number, k, step.binarize
        monkeypatch.setattr(step, "binarize", self)

    def __call__(self, *arguments):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return self.binarize(*arguments)


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


def test_the_usual_signal_handlers_are_back_after_training(synthetic_images, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    short_run(synthetic_images, tmp_path, iter_max=2)
    assert signal.getsignal(signal.SIGINT) is before


def test_starting_over_keeps_the_earlier_state_until_there_is_a_checkpoint(
    synthetic_images, tmp_path, monkeypatch
):
    def interrupted_run(k, **options):
        Signal(monkeypatch, signal.SIGTERM, k)
        with pytest.raises(Interrupted):
            short_run(synthetic_images, tmp_path, **options)
        monkeypatch.undo()

    earlier = tmp_path / "earlier-training-state.pt"
    interrupted_run(7, iter_save=5)
    before = state_path(tmp_path).read_bytes()
    interrupted_run(3, run=1)
    assert saved_steps(tmp_path) == [5]
    assert earlier.read_bytes() == before
    metrics = (tmp_path / "metrics.csv").read_bytes()
    interrupted_run(8, run=1)  # and again: the first of the earlier states is the one to keep
    assert earlier.read_bytes() == before
    assert (tmp_path / "metrics.csv").read_bytes() == metrics
    with pytest.raises(CheckpointError, match="is an earlier run's"):
        short_run(synthetic_images, tmp_path, run=1, iter_max=5, resume=True)
    short_run(synthetic_images, tmp_path, run=1, resume=True)
    assert saved_steps(tmp_path) == [30]
    assert not earlier.exists()


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


def test_divergence_stops_and_keeps_the_last_good_checkpoint(
    synthetic_images, tmp_path, monkeypatch
):
    binarize, calls = step.binarize, iter(range(1000))

    def poisoned(*arguments):
        return binarize(*arguments) * (1 if next(calls) < 15 else float("nan"))

    monkeypatch.setattr(step, "binarize", poisoned)
    with pytest.raises(DivergenceError, match=r"nan at step (1[6-9]|20); .*: 10; a smaller"):
        short_run(synthetic_images, tmp_path, iter_max=100_000, iter_save=10)
    assert saved_steps(tmp_path) == [10]
    assert checkpoint.load(state_path(tmp_path))["step"] == 10


def test_divergence_is_noticed_without_a_checkpoint(synthetic_images, tmp_path):
    with pytest.raises(DivergenceError, match="none"):
        short_run(synthetic_images, tmp_path, iter_max=100_000, iter_save=100_000, lr=1e30)
