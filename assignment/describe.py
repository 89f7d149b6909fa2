"""Describes what a function returned by numbers, in parts that do not depend on each other."""

from itertools import product

import torch
from torch import Tensor

from assignment.answers import GRADIENT, SHOWN, Answers, Part, Quantity, average, exact
from assignment.inputs import Inputs
from assignment.pictures import describe_pictures
from assignment.probe import ARGUMENTS, IMAGES, RESULTS, SAMPLES, Record

LATENTS = "latents for each image"
PRIOR = "z of the prior"
FACTORS = (1, 0, -1, 0.5, 2, 0.1, 4, 10, 0.01, 0.001)


def describe(task: str, inputs: Inputs, record: Record) -> Answers:
    """The numbers of an answer, by parts."""
    if task == "train":
        names = RESULTS["negative_elbo_bound"]
        return {"bounds": {name: exact(x) for name, x in zip(names, record["bounds"], strict=True)}}
    if "result is" in record or (
        task in RESULTS and "result" in record
    ):  # not a tensor, or not three
        return {"result": value("result", record)}
    if task == "sample_gaussian":
        return describe_sample_gaussian(inputs, record)
    if task in ARGUMENTS:
        return describe_function(record)
    if task == "sample_x":
        return {"result": sampled_pixels(inputs, record), PRIOR: prior_latents(record)}
    if task == "visualize_samples":
        return {"picture": describe_pictures(inputs, record), PRIOR: prior_latents(record)}
    return describe_bound(task, inputs, record)


def value(name: str, record: Record, shape: tuple[int, ...] = ()) -> Part:
    """A result by its values if there are few, and by its type or shape if these are wrong."""
    part: Part = {}
    if kind := record.get(f"{name} is"):
        part[f"{name} is {kind}"] = Quantity()
    if isinstance(result := record.get(name), Tensor):  # (calls, *shape)
        if result.shape[1:] != shape:
            part[f"{name} has the shape {tuple(result.shape[1:])}"] = Quantity()
        x = result.double().reshape(len(result), -1)
        part[name] = average(x if x.shape[1] <= 9 else x.mean(1, keepdim=True))
    return part


def describe_sample_gaussian(inputs: Inputs, record: Record) -> Answers:
    """Samples of two calls, and the gradients of the second one."""
    m, v = inputs["m"], inputs["v"]
    if "z" not in record or f"{GRADIENT}z at m, a share" not in record:
        return {"result": value("z", record, m.shape)}
    z = record["z"]
    answers = {"z": noise_of(z.flatten(0, 1), m, v, 2), PRIOR: prior_latents(record)}
    if torch.equal(*z):
        answers["calls"] = {"both calls return the same samples": Quantity()}
    return answers | parts_of_any_function(record)


def describe_function(record: Record) -> Answers:
    """The result of a function without chance, and the numbers of each dimension."""
    answers = {"result": value("result", record, (3,))}
    each = record.get("dimensions")
    answers[SHOWN] = {"each dimension": exact(each)} if isinstance(each, Tensor) else {}
    return answers | parts_of_any_function(record)


def parts_of_any_function(record: Record) -> Answers:
    """The parts of a bound that a function makes alone, and its gradients."""
    answers: Answers = {x: {x: exact(record[x])} for x in ("KL", "REC") if x in record}
    if "changed" in record:
        answers["arguments"] = {f"{record['changed']} is changed in place": Quantity()}
    return answers | gradients_in(record)


def gradients_in(record: Record) -> Answers:
    """A part for each value that has gradients, and in it where they are."""
    answers: Answers = {}
    for key in record:
        if key.startswith(GRADIENT):
            part, _, place = key.partition(" at ")
            x = record[key]
            # At the z of a bound, each copy of an image has its own.
            answers.setdefault(part, {})[f"at {place}"] = average(x) if x.dim() > 2 else exact(x)
    return answers


def sampled_pixels(inputs: Inputs, record: Record) -> Part:
    """Images by the noise of their pixels, which are 1 with known probabilities."""
    x = record["result"].double()  # (calls, images, 784)
    if x.shape[1:] != (IMAGES, 784):
        return value("result", record, (IMAGES, 784))
    other = ((x != 0) & (x != 1)).double().mean().item()
    p = inputs["logits"].sigmoid().double()[None]
    noise = noise_of(x.flatten(0, 1), p, p * (1 - p), len(x), "the noise in x")
    return {"share of values other than 0 and 1": exact(round(other, 2))} | noise


def describe_bound(task: str, inputs: Inputs, record: Record) -> Answers:
    """Each result of a bound, the latents behind them, and in the ELBO the gradients."""
    names = RESULTS[task]
    answers = {name: value(name, record) for name in names}
    calls = len(record["latents"])
    sent = {name: record[name].double() for name in names if name in record}  # (calls, ...)
    answers[SHOWN] = {x: average(sent[x].reshape(calls, -1).mean(1)[:, None]) for x in sent}
    answers[SHOWN][LATENTS] = exact(record["latents"].mean())
    are_scalars = len(sent) == 3 and all(each.dim() == 1 for each in sent.values())
    if task == "negative_iwae_bound":
        if are_scalars:
            answers |= {name: by_samples(name, each) for name, each in sent.items()}
        shares = record["latents"].view(-1, len(SAMPLES)).mean(0).round(decimals=1)
        key = f"decoded latents / (images * iw) for iw = {', '.join(map(str, SAMPLES))}"
        return answers | {"number of samples": {key: exact(shares)}}
    for name in ("KL", "REC"):
        if name in answers[name] and answers[name][name].errors[0] > 1e-4:
            answers[name][f"{name} differs between calls"] = Quantity()
    if are_scalars:
        del answers["NELBO"]["NELBO"]
        answers["NELBO"] |= combination(*sent.values())
    if "z" not in record:
        return answers | {"z": {"no z is decoded": Quantity()}}
    answers["z"] = noise_of(record["z"], inputs["m"], inputs["v"], calls)
    return answers | gradients_in(record)


def combination(nelbo: Tensor, kl: Tensor, rec: Tensor) -> Part:
    """The factors of KL and REC in NELBO, whatever these are; or its difference from their sum."""
    for a, b in product(FACTORS, FACTORS):
        if ((nelbo - a * kl - b * rec).abs() < 1e-4 + 2e-5 * nelbo.abs()).all():
            return {f"NELBO is {a} times KL plus {b} times REC": Quantity()}
    return {"NELBO - (KL + REC)": average((nelbo - kl - rec)[:, None])}


def by_samples(name: str, values: Tensor) -> Part:
    """A result of the importance-weighted bound for each number of samples."""
    values = values.view(-1, len(SAMPLES))
    error = (values.var(0).mean() / len(values)).sqrt().item() + 0.02 * (name == "KL")
    key = f"{name} with {', '.join(map(str, SAMPLES))} samples"
    return {key: Quantity(values.mean(0).tolist(), [error] * len(SAMPLES))}


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
