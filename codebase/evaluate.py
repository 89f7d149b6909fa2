"""The bounds on test images, by the assignment's protocol."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from codebase.data import Images, subset_rows
from codebase.models.vae import ROWS_AT_ONCE, VAE
from codebase.seeds import seeded
from codebase.utils import duplicate

SEED = 0
# Ten thousand draws of the latent for either set, which leaves an error of about 0.03 nats.
SUBSET_PASSES, ALL_PASSES = 100, 1


class Bounds(NamedTuple):
    """Negative ELBO and its two parts, in nats per image."""

    nelbo: float
    kl: float
    rec: float


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
    """
    device = model.z_prior_m.device
    x = x.to(device)
    at_once = max(1, ROWS_AT_ONCE // len(x))
    total = torch.zeros(3, device=device)
    with seeded(SEED, device):
        for done in range(0, passes, at_once):
            for rows in duplicate(x, min(at_once, passes - done)).split(ROWS_AT_ONCE):
                total += len(rows) * torch.stack(model.negative_elbo_bound(rows))
    return Bounds(*(total / (passes * len(x))).tolist())


def measure(model: VAE, images: Images) -> dict[str, Bounds]:
    """The bounds on the 100 test images and on all of them, by a name for each."""
    subset = "the assignment's 100" if images.name == "mnist" else "100"
    return {
        f"{subset} test images": bounds(model, subset_images(images), SUBSET_PASSES),
        f"all {len(images.test)} test images": bounds(model, all_images(images), ALL_PASSES),
    }


@torch.no_grad()
def negative_iwae(model: VAE, x: Tensor, iw: int) -> float:
    """The negative importance-weighted bound on x (n, 784) with `iw` samples, in nats per image."""
    device = model.z_prior_m.device
    with seeded(SEED, device):
        return model.negative_iwae_bound(x.to(device), iw)[0].item()
