"""The training step: the order of the images, and the learning rate."""

import itertools

import pytest
import torch

from codebase import step

CPU = torch.device("cpu")


def some_batches(number, n, run=0, start=0):
    return list(itertools.islice(step.batches(n, run, CPU, start), number))


def test_an_epoch_has_every_image_once_and_a_new_order_each_time():
    epochs = some_batches(20, 1000)
    first, second = torch.cat(epochs[:10]), torch.cat(epochs[10:])
    assert all(len(rows) == 100 for rows in epochs)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert not torch.equal(first, second)


def test_the_order_belongs_to_the_run():
    (first,), (again,), (other,) = (some_batches(1, 1000, run) for run in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_order_goes_on_where_it_was():
    whole = some_batches(25, 1000)
    for start in (1, 9, 10, 11):
        rest = some_batches(25 - start, 1000, start=start)
        assert torch.equal(torch.cat(rest), torch.cat(whole[start:]))


def test_an_incomplete_batch_is_left_out():
    epochs = some_batches(4, 250)
    assert [len(rows) for rows in epochs] == [100] * 4
    assert len(torch.cat(epochs[:2]).unique()) == 200


def test_the_linear_schedule_rises_and_falls_to_zero():
    settings = step.Settings(2, 0, 20_000, 2e-3, "linear", "any")
    training = step.start(step.new_model(2, 0), settings)
    rates = training.schedule.get_last_lr()
    for _ in range(20_000):
        training.optimizer.step()  # does nothing without gradients
        training.schedule.step()
        rates += training.schedule.get_last_lr()
    assert rates[0] == 2e-3 / 100
    assert max(rates) == rates[99] == pytest.approx(2e-3, rel=0.01)
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)
    assert rates[10_000] == pytest.approx(1e-3)
    assert rates[-1] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_training_step_does_not_wait_for_the_gpu(synthetic_images):
    model = step.new_model(4, 0).cuda()
    settings = step.Settings(4, 0, 30, 1e-3, "constant", "synthetic")
    steps = step.training_steps(step.start(model, settings), synthetic_images.test.cuda(), 0)
    for _ in range(3):
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
