"""Training: determinism, checkpoints, interruption, divergence, and that it learns."""

import signal

import pytest
import torch
from training import Signal, short_run

from codebase import checkpoint, evaluate, step
from codebase.checkpoint import model_path, saved_steps, state_path
from codebase.data import load_mnist
from codebase.errors import CheckpointError, DivergenceError, Interrupted


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
    x = evaluate.subset_images(synthetic_images)
    before = evaluate.bounds(step.new_model(4, 0), x, 10).nelbo
    model = short_run(synthetic_images, tmp_path, iter_max=300)
    assert before > 500
    assert evaluate.bounds(model, x, 10).nelbo < 180


def test_three_thousand_steps_on_mnist_end_below_110(mnist_dir, tmp_path):
    images = load_mnist(mnist_dir)
    model = short_run(images, tmp_path, z=10, iter_max=3000, dataset="mnist")
    assert evaluate.bounds(model, evaluate.all_images(images), 1).nelbo < 110


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
