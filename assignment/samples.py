"""Describes latents by numbers: their noise, and the gradients through them."""

import torch
from torch import Tensor

from assignment.answers import Part, Quantity, average
from assignment.probe import Record

PRIOR = "z of the prior"


def noise_of(x: Tensor, m: Tensor, v: Tensor, calls: int = 1, name: str = "the noise in z") -> Part:
    """Describe samples by their noise (x - m) / sqrt(v), which has a name and a known distribution.

    x (rows, dim) are samples for each row of the means m and variances v, (n, dim), in turn, from
    a number of calls.
    """
    n, dim = m.shape
    size = n * calls
    if len(x) < size:
        return {"there are fewer z than images": Quantity()}
    x = x[: len(x) // size * size].double().view(-1, n, dim)
    batches = ((x - m) / v.sqrt()).view(calls, -1, dim)
    if calls > 1 and torch.equal(batches[0], batches[1]):
        batches = batches[:1]  # What is repeated says nothing new.
    elif (batches.amax(1) - batches.amin(1)).max() < 1e-3:
        part = {f"{name} is the same for all images": Quantity()}
        same = (batches[..., 0] - batches[..., -1]).abs().max() < 1e-3
        return part | ({f"{name} is the same for all dimensions": Quantity()} if same else {})
    noise = batches.reshape(-1, n, dim)
    centred = noise - noise.mean(0)
    pairs = (centred.sum(-1).square() - centred.square().sum(-1)) / (dim * (dim - 1))
    batches = centred.view(len(batches), -1, dim)
    half = (batches.shape[1] + 1) // 2
    different = len((1e4 * batches[0]).round().unique(dim=0)) / batches.shape[1]
    part = {
        f"overall mean of {name}": average(noise.mean((1, 2))[:, None]),
        f"overall variance of {name}": average(centred.square().mean((1, 2))[:, None]),
        f"mean absolute value of {name}": average(noise.abs().mean((1, 2))[:, None]),
        f"correlation of dimensions of {name}": average(pairs.mean(1)[:, None]),
        f"correlation of neighbours in {name}": correlation(batches[:, :-1], batches[:, 1:]),
        f"correlation of halves of {name}": correlation(batches[:, :-half], batches[:, half:]),
        f"share of different rows in {name}": Quantity([different], [0.01]),
    }
    if n * dim <= 10:  # Of more numbers these are too many.
        part |= {f"mean of {name}": average(noise), f"variance of {name}": average(centred**2)}
    return part


def correlation(a: Tensor, b: Tensor) -> Quantity:
    """The correlation of noise of variance 1 in two places."""
    return average((a * b).flatten(0, 1).mean(1)[:, None])


def prior_latents(record: Record) -> Part:
    """The noise of latents of the prior; of a few it says little."""
    z = record.get(PRIOR, torch.zeros(0, 1)).flatten(0, -2)
    if len(z) < 100:
        return {f"{len(z)} z are decoded": Quantity()}
    return noise_of(z, torch.zeros(1, z.shape[1]), torch.ones(1, z.shape[1]), name="z")
