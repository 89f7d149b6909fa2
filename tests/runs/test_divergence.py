"""A training that leaves the finite numbers: what it says, and what it keeps."""

from itertools import count

import pytest
import torch
from torch.distributions import Normal
from training import (
    FOLDER,
    STATE,
    TINY,
    after_each_step,
    change_loss,
    settle,
    train_small,
)

from codebase import utils
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import model_path, saved_steps
from codebase.runs.metrics import METRICS
from codebase.system.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


def diverge(step, last_good):
    """Train to divergence at a step, with a checkpoint each ten; what is saved must be sound."""
    with pytest.raises(UserError) as caught:
        train_small(iter_save=10, seconds_between_states=0)
    assert caught.value.status == 1
    assert str(caught.value) == (
        f"the training diverged: at step {step} the loss, a bound or a parameter is not finite; "
        f"last good checkpoint in {FOLDER}: {last_good}; a smaller --lr may help"
    )
    assert saved_steps(FOLDER) == [*range(10, last_good + 1, 10)]
    training = checkpoint.load(STATE)["training"]
    assert training["step"] == step - 1
    for parameters in (training["model"], checkpoint.load(model_path(FOLDER, 10))):
        assert all(x.isfinite().all() for x in parameters.values())
    assert "nan" not in (FOLDER / METRICS).read_text()
    assert "inf" not in (FOLDER / METRICS).read_text()


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf), (25, torch.nan)])
def test_a_loss_that_is_not_finite_ends_the_run(monkeypatch, step, value):
    steps = count(1)
    change_loss(monkeypatch, lambda loss, _: loss + (value if next(steps) == step else 0))
    diverge(step, last_good=(step - 1) // 10 * 10)


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf)])
def test_a_parameter_that_is_not_finite_ends_the_run(step, value):
    """After a step whose loss, which is that before it, was finite."""

    def poison(steps, adam):
        if steps == step:
            with torch.no_grad():
                adam.param_groups[0]["params"][-1][-1] = value

    with after_each_step(poison):
        diverge(step, last_good=10)


@pytest.mark.parametrize("images", [100, 60])  # the hundred, and all of them
def test_a_bound_on_test_images_that_is_not_finite_ends_the_run(monkeypatch, images):
    """As of logits that are finite for the images trained on and overflow for others."""
    plain = VAE.negative_elbo_bound

    def bound(model, x):
        nelbo, kl, rec = plain(model, x)
        of_these = len(x) == 60 if images == 60 else len(x) > 60
        overflows = of_these and saved_steps(FOLDER) == [10]
        return nelbo + (torch.inf if overflows else 0), kl, rec

    monkeypatch.setattr(VAE, "negative_elbo_bound", bound)
    diverge(20, last_good=10)


def in_distributions(m, v):
    return Normal(m, v.sqrt(), validate_args=True).rsample()  # torch.compile sets another default


def test_distributions_that_refuse_what_is_not_finite_are_understood(monkeypatch):
    """They raise a ValueError in the next step, before a loss can be looked at."""

    def poison(steps, adam):
        if steps == 13:
            with torch.no_grad():
                adam.param_groups[0]["params"][2].fill_(torch.nan)

    monkeypatch.setattr(utils, "sample_gaussian", in_distributions)
    with (
        after_each_step(poison),
        pytest.raises(UserError, match="the training diverged: at step 13 ") as caught,
    ):
        train_small(iter_save=10, seconds_between_states=1_000_000)
    assert f"last good checkpoint in {FOLDER}: 10;" in str(caught.value)
    assert saved_steps(FOLDER) == [10]


def test_another_mistake_of_a_solution_is_no_divergence(monkeypatch):
    monkeypatch.setattr(utils, "sample_gaussian", lambda m, v: in_distributions(m, -v))
    with pytest.raises(ValueError, match="constraint"):
        train_small()


def test_a_large_learning_rate_diverges_before_the_first_checkpoint():
    for lr in (1e30, 1e300):
        with pytest.raises(UserError, match=r"last good checkpoint in .*: none; a smaller --lr"):
            train_small(TINY._replace(lr=lr), iter_save=1)
