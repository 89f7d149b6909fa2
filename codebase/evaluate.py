"""The bounds on test images, by the assignment's protocol, and with many samples per image."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from codebase import utils
from codebase.bounds import Bounds, Measured
from codebase.compute.threads import following_load
from codebase.data import Images
from codebase.models.vae import VAE
from codebase.system.errors import UserError
from codebase.system.seeds import seeded

SEED = 0
SUBSET_PASSES = 100  # passes over the assignment's 100 test images; all test images have one
# Number of images, or of latents of one image, that are decoded at once. With more, the
# activations do not fit into the processor's cache.
IMAGES_AT_ONCE, LATENTS_AT_ONCE = 100, 1_000


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


def bounds(model: VAE, x: Tensor, passes: int = 1) -> Bounds:
    """Average the bounds on x (n, 784) over `passes` passes with fresh latent noise.

    The noise has a seed of its own, and the global random state does not change.
    """
    groups = _groups(x.to(device_of(model)), IMAGES_AT_ONCE)
    means = torch.zeros(len(groups), 3, device=device_of(model))
    with evaluation_mode(model), seeded(SEED, means.device):
        for _ in range(passes):
            for group, mean in zip(groups, means, strict=True):
                mean += torch.stack(model.negative_elbo_bound(group)) / passes
    (nelbo, error), (kl, _), (rec, _) = (_mean_and_error(each, groups) for each in means.T)
    return Bounds(nelbo, kl, rec, error)


def measure(model: VAE, images: Images) -> Measured:
    """Measure the bounds on test images and, if some are held out, on validation images."""
    subset = bounds(model, images.subset_bits, SUBSET_PASSES)
    valid = bounds(model, images.valid_bits) if len(images.valid) else None
    return Measured(subset, bounds(model, images.test_bits), valid)


def negative_iwae(model: VAE, x: Tensor, iw: int) -> float:
    """The negative importance-weighted bound on x (n, 784) with `iw` samples, in nats per image.

    Raises UserError if it is not finite.
    """
    return iwae_and_error(model, x, iw)[0]


def iwae_and_error(
    model: VAE, x: Tensor, iw: int, show: Callable[[list[Tensor]], Iterable[Tensor]] = iter
) -> tuple[float, float]:
    """The bound of `negative_iwae`, and its standard error over the images; nan for one image.

    Args:
        show: wraps the groups of images that are measured in turn, for example in a progress bar.
    """
    device = device_of(model)
    # glibc returns the memory of activations to the system, which costs as much as computing them,
    # until a block of almost 32 MiB, its limit, has been freed.
    torch.empty(31, 1024, 256)
    # With many samples, the mean of an image's weights is a weighted mean of the means of parts.
    parts = [min(LATENTS_AT_ONCE, iw - done) for done in range(0, iw, LATENTS_AT_ONCE)]
    log_shares = torch.log(torch.tensor(parts, device=device) / iw)
    groups = _groups(x.to(device), max(1, min(IMAGES_AT_ONCE, LATENTS_AT_ONCE // iw)))
    means = torch.zeros(len(groups), device=device)

    def bound_of(group: Tensor) -> Tensor:
        """The negative bound, averaged over a group of images."""
        log_means = [-model.negative_iwae_bound(group, samples)[0] for samples in parts]
        return -(torch.stack(log_means) + log_shares).logsumexp(0)

    def first_and_last_bound() -> Tensor:
        """The bounds of the largest and the smallest group, with the same noise in each call."""
        with seeded(SEED, device):
            return torch.stack([bound_of(groups[0]), bound_of(groups[-1])])

    # A short measurement would end before the first trial.
    is_long = len(groups) > 20
    follow = following_load(bound_of, first_and_last_bound, device)
    with (
        evaluation_mode(model),
        follow if is_long else nullcontext(bound_of) as timed,
        seeded(SEED, device),
    ):
        for i, group in enumerate(show(groups)):
            means[i] = timed(group)
    bound, error = _mean_and_error(means, groups)
    if not math.isfinite(bound):
        advice = "log_mean_exp of codebase.utils may overflow"
        raise UserError(f"negative_iwae_bound returns {bound} for {iw} samples; {advice}")
    return bound, error


def active_units(model: VAE, x: Tensor) -> int:
    """The number of latent dimensions whose posterior mean has a variance above 0.01 over x.

    Source: Burda, Grosse and Salakhutdinov 2016, section 5.
    """
    with evaluation_mode(model):
        m, _ = model.enc.encode(x.to(device_of(model)))
    return int((m.var(0) > 0.01).sum())


def kl_of_dimensions(model: VAE, x: Tensor) -> Tensor:
    """The KL of each latent dimension (z,), in nats, averaged over the images x (n, 784)."""
    with evaluation_mode(model):
        m, v = model.enc.encode(x.to(device_of(model)))
        prior = model.z_prior_m.expand_as(m), model.z_prior_v.expand_as(m)
        # kl_normal sums over the last dimension, so each latent dimension becomes one of size 1.
        each = [parameter.reshape(-1, 1) for parameter in (m, v, *prior)]
        return utils.kl_normal(*each).view_as(m).mean(0)


def _groups(x: Tensor, size: int) -> list[Tensor]:
    """Split x (n, 784) into groups of at most `size` images, each spread over the data set."""
    number = math.ceil(len(x) / size)
    return [x[i::number] for i in range(number)]


def _mean_and_error(means: Tensor, groups: list[Tensor]) -> tuple[float, float]:
    """The mean over all images, given the means of the groups, and its standard error.

    The error comes from the spread of the means, so it is nan for a single group.
    """
    shares = torch.tensor([len(group) for group in groups]).to(means)
    error = means.std().item() / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return (means @ shares / shares.sum()).item(), error
