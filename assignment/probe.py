"""Calls the function of a task on given inputs and collects tensors: results, latents, gradients.

The same code runs on a student's functions, in a process of theirs, and on ours. It knows no right
answer.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from assignment.inputs import Decoder, Encoder, Inputs

Record = dict[str, Any]  # tensors, and strings that describe what is not a tensor
RESULTS = {
    "negative_elbo_bound": ("NELBO", "KL", "REC"),
    "negative_iwae_bound": ("NIWAE", "KL", "REC"),
}
COPIES = {"sample_gaussian": 5_333, "negative_elbo_bound": 91, "negative_iwae_bound": 67}
CALLS = {"negative_elbo_bound": 6, "negative_iwae_bound": 18}  # calls of a bound
SAMPLES = (2, 5, 11)  # numbers of importance samples, used by the calls in turn
IMAGES = 300  # number of images that sample_x samples in a call
# Arguments of the other functions, and which of them need a gradient.
ARGUMENTS = {
    "kl_normal": ("m", "v", "other m", "other v"),
    "log_bernoulli_with_logits": ("bits", "logits of bits"),
    "log_normal": ("other m", "m", "v"),
}
DIFFERENTIABLE = ("m", "v", "logits of bits")
OF_KL, OF_REC = "gradient of KL in NELBO", "gradient of REC in NELBO"


def probe(task: str, get: Callable[..., Any], x: Inputs) -> Record:
    """Record what a task's function does.

    `get(encoder, decoder, name)` returns a function, or a method of a model with these networks.
    """
    enc, dec = Encoder(x), Decoder(x, varies=task == "negative_iwae_bound")
    get = partial(get, enc, dec)
    if task == "sample_gaussian":
        return probe_sample_gaussian(get, enc)
    if task in ARGUMENTS:
        return probe_function(get(task), task, x)
    if task == "sample_x":
        first = get(task)(IMAGES)
        dec.calls.clear()  # A seed would make the latents of both calls equal.
        return collect("result", [first, get(task)(IMAGES)]) | prior_latents(dec)
    if task == "visualize_samples":
        return probe_pictures(get(task), dec, x)
    return probe_bound(task, get(task), enc, dec)


def probe_sample_gaussian(get: Callable[[str], Callable[..., Any]], enc: Encoder) -> Record:
    """Two samples of many posteriors, the gradients of the second one, and samples of the prior."""
    function, record, samples = get("sample_gaussian"), Record(), list[Any]()
    for _ in range(2):
        arguments = [1 * p.repeat(COPIES["sample_gaussian"], 1) for p in (enc.m, enc.v)]
        before = [each.detach().clone() for each in arguments]
        samples.append(function(*arguments))
        if not all(map(torch.equal, before, arguments)):
            record["changed"] = "m or v"
            with suppress(Exception):  # A bound computes its KL from the changed m and v.
                record |= kl_in_bound(get("kl_normal"), *arguments)
    record |= collect("z", samples)
    record |= collect("z of the prior", [function(torch.zeros(5_000, 10), torch.ones(5_000, 10))])
    if isinstance(z := samples[1], Tensor) and z.shape == before[0].shape:
        record |= gradients_of_latents(z, enc)
    return record


def gradients_of_latents(z: Tensor, enc: Encoder) -> Record:
    """The gradients of z (rows, dim) at m and v, divided by the right ones."""
    z = by_image(z, enc)
    squares = (z - enc.m.detach()).square()
    at_m, at_v = *gradients(z.sum(), [enc.m]), *gradients(squares.sum(), [enc.v])
    at_v = at_v * enc.v.detach() / squares.detach().sum(0)
    return {"gradient of z at m, a share": at_m / len(z), "gradient of z at v, a share": at_v}


def by_image(rows: Tensor, enc: Encoder) -> Tensor:
    """Rows (n, dim) for the images in turn as (copies, images, dim)."""
    return rows[: len(rows) // len(enc.m) * len(enc.m)].view(-1, *enc.m.shape)


def probe_function(function: Callable[..., Any], task: str, x: Inputs) -> Record:
    """The results of a function without chance, its gradients, and those of each dimension."""
    leaves = {key: x[key].clone().requires_grad_(key in DIFFERENTIABLE) for key in ARGUMENTS[task]}
    arguments = [1 * leaf for leaf in leaves.values()]
    result = function(*arguments)
    record = collect("result", [result])
    if not all(map(torch.equal, arguments, leaves.values())):
        record["changed"] = "an argument"
    with suppress(Exception):  # The result may be anything.
        # The functions of utils.py make these parts of a bound.
        if task == "kl_normal":
            record |= kl_in_bound(function, x["m"], x["v"])
        if task == "log_bernoulli_with_logits":
            record["REC"] = -function(x["x"], x["logits"].expand_as(x["x"])).mean().detach()
        dimensions = zip(*(x.detach().split(1, -1) for x in leaves.values()), strict=True)
        each = torch.stack([function(*(x.clone() for x in columns)) for columns in dimensions], -1)
        record["dimensions"] = each.detach()
    total = result.sum() if isinstance(result, Tensor) else None
    for key in [key for key in leaves if key in DIFFERENTIABLE]:
        record[f"gradient of result at {key}"] = gradients(total, [leaves[key]])[0]
    return record


def kl_in_bound(kl_normal: Callable[..., Tensor], m: Tensor, v: Tensor) -> Record:
    """The KL from the prior, averaged as in a bound."""
    posterior, prior = (1 * m, 1 * v), (0 * m, 0 * v + 1)
    return {"KL": kl_normal(*posterior, *prior).mean().detach()}


def probe_bound(task: str, function: Callable[..., Any], enc: Encoder, dec: Decoder) -> Record:
    """Several calls of a bound: its three results, the latents behind it, and the gradients."""
    images = enc.images.repeat(COPIES[task], 1)
    results, z, counts = [], [], []
    for call in range(CALLS[task]):
        dec.calls.clear()
        iw = SAMPLES[call % len(SAMPLES)] if "iwae" in task else 1
        result = function(images, iw) if "iwae" in task else function(images)
        if isinstance(result, Tensor) and result.shape == (3,):
            result = result.unbind()  # unpacks just like a tuple
        if not (isinstance(result, tuple | list) and len(result) == 3):
            return collect("result", [result])
        # Latents that the bound does not depend on are for something else, for example a picture.
        reached = gradients(result[0], [leaf for _, leaf in dec.calls])
        used = [pair for pair, each in zip(dec.calls, reached, strict=True) if each.any()]
        used = used or [*dec.calls]
        z.append(torch.cat([torch.zeros(0, 2), *(x.detach().reshape(-1, 2) for x, _ in used)]))
        counts.append(len(z[-1].unique(dim=0)) / len(images) / iw)
        results.append(result)
    record: Record = {"latents": torch.tensor(counts)}
    for name, values in zip(RESULTS[task], zip(*results, strict=True), strict=True):
        record |= collect(name, [*values])
    if used:
        last = torch.cat([each.reshape(-1, 2) for each, _ in used])
        record |= {"z": torch.cat(z), **gradients_of_latents(last, enc)}
        leaves = [enc.m, enc.v, dec.shift, *(leaf for _, leaf in used)]
        at_m, at_v, at_decoder, *at_z = gradients(results[-1][0], leaves)
        record |= {f"{OF_KL} at m": at_m, f"{OF_KL} at v": at_v, f"{OF_REC} at decoder": at_decoder}
        copies = by_image(torch.cat([each.reshape(-1, 2) for each in at_z]), enc)
        record[f"{OF_REC} at z of each image"] = len(copies) * copies
    return record


def probe_pictures(draw: Callable[[], Tensor], dec: Decoder, x: Inputs) -> Record:
    """Two pictures, and the latents of the second one, since a seed would repeat them."""
    dec.logits = x["constant logits"]
    record: Record = {"constant": draw()}
    dec.calls.clear()
    dec.logits = x["random logits"]
    return record | {"random": draw()} | prior_latents(dec)


def prior_latents(dec: Decoder) -> Record:
    """All latents that were decoded, if any."""
    z = [value.detach().reshape(-1, value.shape[-1]) for value, _ in dec.calls]
    return {"z of the prior": torch.cat(z)} if z else {}


def gradients(result: Any, leaves: list[Tensor]) -> list[Tensor]:
    """Gradients of the mean of a result, 0 where there is none."""
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if isinstance(result, Tensor) and result.requires_grad and leaves:
        found = torch.autograd.grad(result.mean(), leaves, allow_unused=True, retain_graph=True)
    both = zip(found, leaves, strict=True)
    return [torch.zeros_like(leaf) if x is None else x.detach() for x, leaf in both]


def collect(name: str, values: list[Any]) -> Record:
    """The values of several calls as one tensor (calls, ...), and in words what else they are."""
    first = values[0]
    if all(isinstance(x, Tensor) and x.shape == first.shape for x in values):
        return {name: torch.stack([x.detach() for x in values])}
    if all(isinstance(x, int | float) for x in values):
        return {name: torch.tensor(values).float(), f"{name} is": type(first).__name__}
    is_several = isinstance(first, tuple | list)
    return {f"{name} is": f"{len(first)} values" if is_several else type(first).__name__}
