"""The training loop: its batches, its determinism, and that it learns."""

import itertools

import pytest
import torch

from codebase import evaluate, train
from codebase.checkpoint import model_path, saved_steps
from codebase.data import load_mnist
from codebase.seeds import seeded

CPU = torch.device("cpu")


def short_run(images, folder, run=0, iter_max=30, iter_save=1000):
    model = train.new_model(4, "short", run)
    train.train(model, images.train, folder, run=run, iter_max=iter_max, iter_save=iter_save)
    return model


def test_an_epoch_has_every_image_once_and_a_new_order_each_time():
    epochs = list(itertools.islice(train.batches(1000, 0, CPU), 20))
    first, second = torch.cat(epochs[:10]), torch.cat(epochs[10:])
    assert all(len(rows) == 100 for rows in epochs)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert not torch.equal(first, second)


def test_the_order_belongs_to_the_run():
    first, again, other = (next(train.batches(1000, run, CPU)) for run in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_incomplete_batch_is_left_out():
    epochs = list(itertools.islice(train.batches(250, 0, CPU), 4))
    assert [len(rows) for rows in epochs] == [100] * 4
    assert len(torch.cat(epochs[:2]).unique()) == 200


def test_the_same_run_gives_the_same_bytes(synthetic_images, tmp_path):
    for name, run in [("a", 0), ("b", 0), ("c", 1)]:
        torch.randn(7)  # the global random state has no part in it
        short_run(synthetic_images, tmp_path / name, run)
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
    model, last = train.new_model(4, "", 0), model_path(tmp_path, 20)
    model.load_state_dict(torch.load(last, weights_only=True))


def test_a_new_run_replaces_the_old_files_only_when_it_has_one(
    synthetic_images, tmp_path, capsys, monkeypatch
):
    short_run(synthetic_images, tmp_path, iter_max=20, iter_save=10)
    assert "Deleting" not in capsys.readouterr().out
    monkeypatch.setattr(train, "save_model", failing := FailingSave())
    with pytest.raises(OSError, match="full"):
        short_run(synthetic_images, tmp_path, run=1, iter_max=15)
    assert failing.called
    assert saved_steps(tmp_path) == [10, 20]
    monkeypatch.undo()
    capsys.readouterr()
    short_run(synthetic_images, tmp_path, run=1, iter_max=15)
    assert saved_steps(tmp_path) == [15]
    assert capsys.readouterr().out.startswith(f"Deleting existing path: {tmp_path}\n")


class FailingSave:
    called = False

    def __call__(self, model, path):
        self.called = True
        raise OSError("disk full")


def test_training_learns_the_synthetic_digits(synthetic_images, tmp_path):
    x = evaluate.report_images(synthetic_images)
    before = evaluate.bounds(train.new_model(4, "short", 0), x, 10).nelbo
    model = short_run(synthetic_images, tmp_path, iter_max=300)
    assert before > 500
    assert evaluate.bounds(model, x, 10).nelbo < 180


def test_three_thousand_steps_on_mnist_end_below_110(mnist_dir, tmp_path):
    images = load_mnist(mnist_dir)
    model = train.new_model(10, "mnist", 0)
    train.train(model, images.train, tmp_path, run=0, iter_max=3000, iter_save=10000)
    assert evaluate.bounds(model, evaluate.all_images(images), 1).nelbo < 110


def test_an_unknown_device_is_refused():
    with pytest.raises(train.DeviceError, match=r"no device 'gpu', only .*cpu"):
        train.choose_device("gpu")
    assert train.choose_device("cpu") == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_training_step_does_not_wait_for_the_gpu(synthetic_images):
    device = torch.device("cuda")
    model = train.new_model(4, "gpu", 0).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = synthetic_images.test[:100].to(device) / 255
    with seeded(0, device):
        train.training_step(model, optimizer, x)
        torch.cuda.set_sync_debug_mode("error")
        try:
            train.training_step(model, optimizer, x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
