"""Calls the function of a task on given inputs and collects tensors: results, latents, gradients.

The same code runs on a student's functions, in a process of theirs, and on ours. It knows no right
answer.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]
Record = dict[str, Any]  # tensors, and strings that describe what is not a tensor
BOUND = ("NELBO", "KL", "REC")
COPIES = {
    "sample_gaussian": 5_333,
    "negative_elbo_bound": 167,
    "negative_iwae_bound": 67,
}  # of each image
CALLS = 9  # of a bound
SAMPLES = (2, 5, 11)  # importance samples of the calls in turn
IMAGES = 300  # of sample_x
# Arguments of the other functions, and which of them need a gradient.
ARGUMENTS = {
    "kl_normal": ("m", "v", "other m", "other v"),
    "log_bernoulli_with_logits": ("bits", "logits of bits"),
    "log_normal": ("other m", "m", "v"),
}
DIFFERENTIABLE = ("m", "v", "logits of bits")


class Encoder(nn.Module):
    """Encodes a few known images (n, 784) to the posteriors N(m, v), each (n, z)."""

    def __init__(self, inputs: Inputs):
        super().__init__()
        self.images = inputs["x"]
        self.m, self.v = (inputs[key].clone().requires_grad_() for key in ("m", "v"))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the posteriors of the images x (..., 784)."""
        image = torch.cdist(x.detach().float().reshape(-1, 784), self.images).argmin(-1)
        image = image.view(x.shape[:-1])
        return self.m[image], self.v[image]

    def net(self, x: Tensor) -> Tensor:
        """The layers alone, whose output gaussian_parameters splits into mean and variance."""
        m, v = self.encode(x)
        return torch.cat([m, (v - 1e-8).expm1().log()], -1)

    forward = encode


class Decoder(nn.Module):
    """Decodes latents (..., z) to logits (..., 784), and keeps the latents of each call.

    Leaves of zeros are added to its inputs and outputs: the gradients at them say which latents
    a result depends on, and whether gradients reach the networks.
    """

    def __init__(self, inputs: Inputs, task: str):
        super().__init__()
        self.logits, self.slopes = inputs["logits"], inputs.get("slopes")
        self.exact = task == "negative_elbo_bound"
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []  # z, its values, and the leaf
        self.shift = torch.zeros((), requires_grad=True)

    def decode(self, z: Tensor) -> Tensor:
        """The logits. In the ELBO they have a gradient, but do not vary with z."""
        entry = torch.zeros_like(z, requires_grad=True)
        value = z.detach().clone()
        self.calls.append((z, value, entry))
        if self.slopes is None:
            return self.logits.expand(*z.shape[:-1], 784) + 0 * z[..., :1]
        z = (z + entry - value) * value if self.exact else z + entry
        return self.logits + self.shift + z @ self.slopes

    net = forward = decode


def probe(task: str, get: Callable[..., Any], x: Inputs, calls: int = CALLS) -> Record:
    """Call a task's function and record what it does.

    Args:
        get: returns a function by its name, given an encoder and a decoder for the model.
        calls: how often to call a bound.
    """
    enc, dec = Encoder(x), Decoder(x, task)
    get = partial(get, enc, dec)
    if task == "sample_gaussian":
        return probe_sample_gaussian(get(task), enc.m, enc.v)
    if task in ARGUMENTS:
        return probe_function(get(task), task, x)
    if task == "sample_x":
        return collect("result", [get(task)(IMAGES), get(task)(IMAGES)]) | latents(dec)
    if task == "visualize_samples":
        return probe_pictures(get(task), dec, x)
    return probe_bound(task, get, enc, dec, x, calls)


def probe_sample_gaussian(
    function: Callable[[Tensor, Tensor], Any], m: Tensor, v: Tensor
) -> Record:
    """Two samples of many posteriors, and the gradients of the second one."""
    record: Record = {}
    for name in ("first", "second"):
        mean, variance = (1 * p.repeat(COPIES["sample_gaussian"], 1) for p in (m, v))
        before = mean.detach().clone(), variance.detach().clone()
        z = function(mean, variance)
        record |= collect(name, [z])
        if not all(map(torch.equal, before, (mean, variance))):
            record["changed"] = "m or v"
    if isinstance(z, Tensor) and z.shape == before[0].shape:
        record["gradient of m"] = gradients(z.sum(), [m])[0]
        record["gradient of v"] = gradients((z - before[0]).square().sum() / 2, [v])[0]
    return record


def probe_function(function: Callable[..., Any], task: str, x: Inputs) -> Record:
    """The results of a function without chance, its gradients, and those of each dimension."""
    leaves = {key: x[key].clone().requires_grad_(key in DIFFERENTIABLE) for key in ARGUMENTS[task]}
    arguments = [1 * leaf for leaf in leaves.values()]
    result = function(*arguments)
    record = collect("result", [result])
    if not all(map(torch.equal, arguments, leaves.values())):
        record["changed"] = "an argument"
    with suppress(Exception):  # Only shown.
        dimensions = zip(*(x.detach().split(1, -1) for x in leaves.values()), strict=True)
        each = torch.stack([function(*(x.clone() for x in columns)) for columns in dimensions], -1)
        record["dimensions"] = each.detach()
    if isinstance(result, Tensor):
        asked = [key for key in leaves if key in DIFFERENTIABLE]
        found = gradients(result.sum(), [leaves[key] for key in asked])
        record |= {f"gradient of {key}": each for key, each in zip(asked, found, strict=True)}
    return record


def probe_bound(
    task: str, get: Callable[[str], Any], enc: Encoder, dec: Decoder, x: Inputs, calls: int
) -> Record:
    """Several calls of a bound: its three results, the latents behind it, and the gradients."""
    images = x["x"].repeat(COPIES[task], 1)
    results, z, counts = [], [], []
    for call in range(calls):
        dec.calls.clear()
        iw = SAMPLES[call % len(SAMPLES)] if "iwae" in task else 1
        result = get(task)(images, iw) if "iwae" in task else get(task)(images)
        if isinstance(result, Tensor) and result.shape == (3,):
            result = result.unbind()  # unpacks just like a tuple
        if not (isinstance(result, tuple | list) and len(result) == 3):
            return collect("result", [result])
        entries = [entry for *_, entry in dec.calls]
        # Latents that the bound does not depend on are for something else, for example a picture.
        reached = gradients(result[0], entries, None) if len(entries) > 1 else []
        used = [i for i, each in enumerate(reached) if each is not None]
        values = [dec.calls[i][1].reshape(-1, 2) for i in used or range(len(entries))]
        counts.append(len(torch.cat(values).unique(dim=0)) / len(images) / iw if values else 0)
        z += values
        results.append(result)
    record: Record = {"latents": torch.tensor(counts)}
    for name, calls_of_it in zip(BOUND, zip(*results, strict=True), strict=True):
        record |= collect(name, [*calls_of_it])
        if isinstance(last := calls_of_it[-1], Tensor) and last.requires_grad:
            found = gradients(last, [enc.m, enc.v, dec.shift])
            for key, each in zip(("m", "v", "decoder"), found, strict=True):
                record[f"gradient of {name} at {key}"] = each
    if z:
        record["z"] = torch.cat(z)
        last = [dec.calls[i] for i in used or range(len(entries))]
        record["last z"] = torch.cat([value.reshape(-1, 2) for _, value, _ in last])
        # With these weights the gradient at v is not near 0 by chance.
        weighted = sum((each * value).sum() for each, value, _ in last)
        record["gradient of z at m"], record["gradient of z at v"] = gradients(
            weighted, [enc.m, enc.v]
        )
    if "iwae" not in task:
        record |= own_parts(get, images, enc, x)
    at_z = [gradients(value, entries, None) for value in (results[-1][2], results[-1][0])]
    for found in at_z:
        if reached := [each.reshape(-1, 2) for each in found if each is not None]:
            record["gradient at z"] = torch.cat(reached)
            break
    return record


def own_parts(get: Callable[[str], Any], images: Tensor, enc: Encoder, x: Inputs) -> Record:
    """What the functions of utils.py return for the bound's inputs: mistakes there cost once."""
    record: Record = {}
    with suppress(Exception), torch.no_grad():
        m, v = enc.encode(images)
        zero, one = torch.zeros_like(m), torch.ones_like(v)
        record["own REC"] = get("log_bernoulli_with_logits")(images, x["logits"].expand_as(images))
        copies = [get("sample_gaussian")(m.clone(), v.clone()) for _ in range(CALLS)]
        record["own z"] = torch.cat(copies)
        get("sample_gaussian")(m, v)  # It may change v, and the KL with it.
        record["own KL"] = get("kl_normal")(m, v, zero, one)
    return record


def probe_pictures(draw: Callable[[], Tensor], dec: Decoder, x: Inputs) -> Record:
    """Two pictures, and the latents of the first. The second one may repeat them after a seed."""
    dec.logits = x["constant logits"]
    record: Record = {"constant": draw()}
    dec.calls.clear()
    dec.logits = x["random logits"]
    return record | {"random": draw()} | latents(dec)


def latents(dec: Decoder) -> Record:
    """All latents that were decoded, if any."""
    z = [value.reshape(-1, value.shape[-1]) for _, value, _ in dec.calls]
    return {"z": torch.cat(z)} if z else {}


def gradients(result: Any, leaves: list[Tensor], missing: float | None = 0) -> list[Any]:
    """Gradients of the mean of a result; `missing` times the leaf, or None, where there is none."""
    if not (isinstance(result, Tensor) and result.requires_grad):
        found: Sequence[Tensor | None] = [None] * len(leaves)
    else:
        found = torch.autograd.grad(result.mean(), leaves, allow_unused=True, retain_graph=True)
    return [
        x.detach() if x is not None else missing and None if missing is None else 0 * leaf.detach()
        for x, leaf in zip(found, leaves, strict=True)
    ]


def collect(name: str, values: list[Any]) -> Record:
    """The values of several calls as one tensor (calls, ...), and in words what else they are."""
    first = values[0]
    if all(isinstance(x, Tensor) and x.shape == first.shape for x in values):
        return {name: torch.stack([x.detach() for x in values])}
    record: Record = {f"{name} is": type(first).__name__}
    if isinstance(first, tuple | list):
        record = {f"{name} is": f"{len(first)} values"}
    if all(isinstance(x, int | float) for x in values):
        record[name] = torch.tensor(values).float()
    return record
