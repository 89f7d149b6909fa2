"""A training that diverges: its message, and the files that it keeps."""

from itertools import count

import pytest
import torch
from torch.distributions import Normal
from training import RUN, TINY, after_each_step, change_loss, settle, train_small

from codebase import utils
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.system.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


def diverge(step, last_good, seconds_between_states=0):
    """Train until the run diverges at that step; the message names the last model before it."""
    with pytest.raises(UserError, match=rf"diverged: at step {step}\b") as caught:
        train_small(iter_save=10, seconds_between_states=seconds_between_states)
    assert caught.value.status == 1
    assert f"{RUN.model(last_good)}; a smaller --lr may help" in str(caught.value)
    assert RUN.saved_steps() == [*range(10, last_good + 1, 10)]


def diverge_and_check_files(step, last_good):
    """Diverge with a state saved after each step; all files hold finite numbers."""
    diverge(step, last_good)
    training = checkpoint.load(RUN.state)["training"]
    assert training["step"] == step - 1
    for parameters in (training["model"], checkpoint.load(RUN.model(10))):
        assert all(x.isfinite().all() for x in parameters.values())
    assert "nan" not in RUN.metrics.read_text()
    assert "inf" not in RUN.metrics.read_text()


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf), (25, torch.nan)])
def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch, step, value):
    steps = count(1)
    change_loss(monkeypatch, lambda loss, _: loss + (value if next(steps) == step else 0))
    diverge_and_check_files(step, last_good=(step - 1) // 10 * 10)


def poison(step, parameter, value):
    """Change a parameter after a step whose loss, that of the parameters before it, was finite."""

    def change(steps, adam):
        if steps == step:
            with torch.no_grad():
                adam.param_groups[0]["params"][parameter][-1] = value

    return after_each_step(change)


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf)])
def test_a_parameter_that_is_not_finite_ends_the_run(step, value):
    with poison(step, -1, value):
        diverge_and_check_files(step, last_good=10)


@pytest.mark.parametrize("images", [100, 60])  # the assignment's, and all of them
def test_a_bound_on_test_images_that_is_not_finite_ends_the_run(monkeypatch, images):
    """Logits may be finite for training images and overflow for others."""
    plain = VAE.negative_elbo_bound

    def bound(model, x):
        nelbo, kl, rec = plain(model, x)
        of_these = len(x) == 60 if images == 60 else len(x) > 60
        overflows = of_these and RUN.saved_steps() == [10]
        return nelbo + (torch.inf if overflows else 0), kl, rec

    monkeypatch.setattr(VAE, "negative_elbo_bound", bound)
    diverge_and_check_files(20, last_good=10)


def sample_validated(m, v):
    return Normal(m, v.sqrt(), validate_args=True).rsample()  # torch.compile sets another default


def test_the_error_of_torch_distributions_is_reported_as_divergence(monkeypatch):
    """Normal raises a ValueError in the next step, before the loss is looked at."""
    monkeypatch.setattr(utils, "sample_gaussian", sample_validated)
    with poison(13, 2, torch.nan):
        diverge(13, last_good=10, seconds_between_states=1_000_000)


def test_another_value_error_of_a_solution_is_not_a_divergence(monkeypatch):
    monkeypatch.setattr(utils, "sample_gaussian", lambda m, v: sample_validated(m, -v))
    with pytest.raises(ValueError, match="constraint"):
        train_small()


def test_a_large_learning_rate_diverges_before_the_first_checkpoint():
    for lr in (1e30, 1e300):
        with pytest.raises(UserError, match=r"last good checkpoint: none; a smaller --lr"):
            train_small(TINY._replace(lr=lr), iter_save=1)
