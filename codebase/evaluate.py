"""The bounds on test images, by the assignment's protocol."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from codebase import utils
from codebase.data import Images
from codebase.models.vae import VAE
from codebase.system.errors import UserError
from codebase.system.seeds import seeded

SEED = 0
# Each set of test images gets 10,000 latent samples. Their noise leaves a standard error of about
# 0.03 nats.
SUBSET_PASSES, ALL_PASSES = 100, 1
# Number of latents decoded at once. Their activations take about 30 MB; with more, allocating the
# memory takes longer than computing.
AT_ONCE = 1_000


class Bounds(NamedTuple):
    """Negative ELBO and its two parts, in nats per image."""

    nelbo: float
    kl: float
    rec: float


class Measured(NamedTuple):
    """The bounds of a model on the assignment's 100 test images and on all test images."""

    subset: Bounds
    all: Bounds
    seconds: float = math.nan  # training time; nan where unknown


def device_of(model: VAE) -> torch.device:
    """The device that the model computes on."""
    return next(model.parameters()).device


@contextmanager
def evaluation_mode(model: VAE) -> Iterator[None]:
    """Compute without gradients, dropout and updates of batch statistics inside the block."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def bounds(model: VAE, x: Tensor, passes: int) -> Bounds:
    """Average the bounds on x (n, 784) over `passes` passes with fresh latent noise.

    The noise has a seed of its own, and the global random state does not change.
    """
    device = device_of(model)
    total = torch.zeros(3, device=device)
    with evaluation_mode(model), seeded(SEED, device):
        for batch in x.to(device).repeat(passes, 1).split(AT_ONCE):
            total += len(batch) * torch.stack(model.negative_elbo_bound(batch))
    return Bounds(*(total / (passes * len(x))).tolist())


def measure(model: VAE, images: Images) -> Measured:
    """Measure the bounds on the assignment's 100 test images and on all test images."""
    subset = bounds(model, images.subset_bits, SUBSET_PASSES)
    return Measured(subset, bounds(model, images.test_bits, ALL_PASSES))


def negative_iwae(model: VAE, x: Tensor, iw: int) -> float:
    """The negative importance-weighted bound on x (n, 784) with `iw` samples, in nats per image.

    Raises UserError if it is not finite.
    """
    device = device_of(model)
    total = torch.zeros((), device=device)
    with evaluation_mode(model), seeded(SEED, device):
        for batch in x.to(device).split(max(1, AT_ONCE // iw)):
            total += len(batch) * model.negative_iwae_bound(batch, iw)[0]
    if not total.isfinite():
        advice = "log_mean_exp of codebase.utils may overflow"
        raise UserError(f"negative_iwae_bound returns {total.item()} for {iw} samples; {advice}")
    return total.item() / len(x)


def kl_of_dimensions(model: VAE, x: Tensor) -> Tensor:
    """The KL of each latent dimension (z,), in nats, averaged over the images x (n, 784)."""
    with evaluation_mode(model):
        m, v = model.enc.encode(x.to(device_of(model)))
        prior = model.z_prior_m.expand_as(m), model.z_prior_v.expand_as(m)
        # kl_normal sums over the last dimension, so each latent dimension becomes one of size 1.
        each = [parameter.reshape(-1, 1) for parameter in (m, v, *prior)]
        return utils.kl_normal(*each).view_as(m).mean(0)
