"""The bounds on test images, by the assignment's protocol."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from codebase import utils
from codebase.data import Images, subset_rows
from codebase.models.vae import VAE
from codebase.system.errors import UserError
from codebase.system.seeds import seeded

TEST, ALL_TEST = "test", "all test"  # the assignment's hundred, and all of them
SEED = 0
# Ten thousand draws of the latent for either set, which leaves an error of about 0.03 nats.
SUBSET_PASSES, ALL_PASSES = 100, 1
# Latents that are decoded at once: about 30 MB of activations. With more, getting the memory takes
# longer than computing, and a thousand samples of each of a hundred images would be gigabytes.
AT_ONCE = 1_000


class Bounds(NamedTuple):
    """Negative ELBO and its two parts, in nats per image."""

    nelbo: float
    kl: float
    rec: float


def device_of(model: VAE) -> torch.device:
    """The device that the model computes on."""
    return next(model.parameters()).device


def subset_images(images: Images) -> Tensor:
    """The assignment's 100 test images, binarized by its protocol, (100, 784) on the CPU."""
    return _binarize_once(images.test[subset_rows(images.test_labels)])


@lru_cache(maxsize=1)  # a run measures them again and again
def all_images(images: Images) -> Tensor:
    """All test images, binarized likewise, (10000, 784) on the CPU."""
    return _binarize_once(images.test)


def _binarize_once(images: Tensor) -> Tensor:
    # With the protocol's own function and on the CPU, so that all are measured on the same bits.
    return torch.bernoulli(images / 255, generator=torch.Generator().manual_seed(SEED))


@torch.no_grad()
def bounds(model: VAE, x: Tensor, passes: int) -> Bounds:
    """The bounds on x (n, 784), averaged over `passes` passes with fresh latent noise.

    The noise comes from a seed of its own, and the global random state is left as it was.

    Raises:
        UserError: a pixel is no probability, for example since the images were normalized.
    """
    if x.min() < 0 or x.max() > 1:
        raise UserError(
            f"pixels must be from 0 to 1, and these are from {x.min():.2f} to {x.max():.2f}"
        )
    device = device_of(model)
    total = torch.zeros(3, device=device)
    with seeded(SEED, device):
        for rows in x.to(device).repeat(passes, 1).split(AT_ONCE):
            total += len(rows) * torch.stack(model.negative_elbo_bound(rows))
    return Bounds(*(total / (passes * len(x))).tolist())


def measure(model: VAE, images: Images) -> dict[str, Bounds]:
    """The bounds on the assignment's 100 test images, and those on all test images."""
    return {
        TEST: bounds(model, subset_images(images), SUBSET_PASSES),
        ALL_TEST: bounds(model, all_images(images), ALL_PASSES),
    }


@torch.no_grad()
def negative_iwae(model: VAE, x: Tensor, iw: int) -> float:
    """The negative importance-weighted bound on x (n, 784) with `iw` samples, in nats per image."""
    device = device_of(model)
    total = torch.zeros((), device=device)
    with seeded(SEED, device):
        for rows in x.to(device).split(max(1, AT_ONCE // iw)):
            total += len(rows) * model.negative_iwae_bound(rows, iw)[0]
    return total.item() / len(x)


@torch.no_grad()
def kl_of_images(model: VAE, x: Tensor) -> list[float]:
    """The KL of each latent dimension, in nats, averaged over the images x (n, 784)."""
    m, v = model.enc.encode(x.to(device_of(model)))
    each = kl_of_dimensions(model, m, v)
    return each.tolist()


@torch.no_grad()
def kl_of_dimensions(model: VAE, m: Tensor, v: Tensor) -> Tensor:
    """The KL of each latent dimension (z,), in nats, averaged over the posteriors m, v (n, z)."""
    prior = model.z_prior_m.expand_as(m), model.z_prior_v.expand_as(m)
    each = [values.reshape(-1, 1) for values in (m, v, *prior)]
    return utils.kl_normal(*each).view_as(m).mean(0)
