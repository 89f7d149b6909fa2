"""The probability: sampling, densities and divergences, all in nats.

Every density and divergence sums over the last dimension only, broadcasts its arguments, and checks
no values, so that none of them makes a GPU wait.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_gaussian(m: Tensor, v: Tensor) -> Tensor:
    """Sample z ~ N(m, diag(v)) by reparameterization, so that gradients reach m and v.

    Args:
        m, v: mean and variance, broadcastable to (..., dim), variance positive.

    Returns:
        (..., dim) one sample for each mean.

    Source: Kingma and Welling 2014, section 2.4.
    """
    m, v = torch.broadcast_tensors(m, v)
    return m + v.sqrt() * torch.randn_like(m)


def gaussian_parameters(h: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Split a network's output into the mean and the variance of a Gaussian.

    Args:
        h: (..., 2 * size, ...) with the 2 * size along `dim`.

    Returns:
        m, v: (..., size, ...) the first half, and softplus of the second half plus 1e-8.

    Raises:
        ValueError: the size along `dim` is odd.
    """
    if h.size(dim) % 2:
        raise ValueError(f"dimension {dim} of h has the odd size {h.size(dim)}; it must be even")
    m, h = h.chunk(2, dim=dim)
    # The constant keeps log v and 1 / v finite where softplus underflows to 0.
    return m, F.softplus(h) + 1e-8


def kl_normal(qm: Tensor, qv: Tensor, pm: Tensor, pv: Tensor) -> Tensor:
    """KL divergence KL(q || p) of diagonal Gaussians, summed over the last dimension, in nats.

    Args:
        qm, qv: (..., dim) mean and variance of q, variance positive.
        pm, pv: mean and variance of p, broadcastable to (..., dim), variance positive.

    Returns:
        (...) one divergence per sample.

    Source: Kingma and Welling 2014, appendix B, for a general p.
    """
    return 0.5 * (pv.log() - qv.log() + qv / pv + (qm - pm).square() / pv - 1).sum(-1)


def log_normal(x: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian, summed over the last dimension, in nats.

    Args:
        x: (..., dim) where to evaluate it.
        m, v: mean and variance, broadcastable with x, variance positive.

    Returns:
        (...) one log density per sample.

    Source: Bishop 2006, equation 2.43, for a diagonal covariance.
    """
    return -0.5 * (math.log(2 * math.pi) + v.log() + (x - m).square() / v).sum(-1)


def log_bernoulli_with_logits(x: Tensor, logits: Tensor) -> Tensor:
    """Log probability of x under independent Bernoullis, summed over the last dimension, in nats.

    Args:
        x: (..., dim) outcomes in [0, 1].
        logits: log-odds of a 1, broadcastable with x.

    Returns:
        (...) one log probability per sample.

    Source: x log p + (1 - x) log(1 - p) with p = sigmoid(logits), written without p, which rounds
    to 0 or 1 for large logits.
    """
    # Beyond the threshold softplus returns its argument: the default of 20 is too rough in float64.
    return (x * logits - F.softplus(logits, threshold=40)).sum(-1)


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """Log of the mean of exp(x) along `dim`, without overflow.

    Args:
        x: (..., size, ...) with the size along `dim`.

    Returns:
        (..., ...) x without its dimension `dim`.
    """
    return x.logsumexp(dim) - math.log(x.size(dim))


def duplicate(x: Tensor, rep: int) -> Tensor:
    """Repeat a whole batch `rep` times along its first dimension.

    Args:
        x: (batch, ...).

    Returns:
        (rep * batch, ...) with row r * batch + i equal to row i of x. The rows of a batch of one
        share their memory.
    """
    return x.expand(rep, *x.shape).flatten(0, 1)
