"""Describes what a function returned by numbers, in parts that do not depend on each other."""

from itertools import product

import torch
from torch import Tensor

from assignment.answers import SHOWN, Answers, Part, Quantity, average, exact
from assignment.inputs import PIXEL_LOGITS
from assignment.pictures import describe_pictures
from assignment.probe import ARGUMENTS, BOUND, DIFFERENTIABLE, SAMPLES, Inputs, Record

SLOPE = "gradient of REC at z, for each image"
FACTORS = (1, 0, -1, 0.5, 2, 0.1, 4, 10, 0.01, 0.001)


def describe(task: str, inputs: Inputs, record: Record) -> Answers:
    """The numbers of an answer, by parts."""
    if task == "train":
        return {"bounds": {name: exact(x) for name, x in zip(BOUND, record["bounds"], strict=True)}}
    other = {"result", "result is", "second is"} & record.keys()  # not what is asked for
    if other and (
        task not in (*ARGUMENTS, "sample_x") or (task in ARGUMENTS and "result is" in record)
    ):
        return {"result": value("second" if "second is" in other else "result", record)}
    if task == "sample_gaussian":
        return describe_sample_gaussian(inputs, record)
    if task in ARGUMENTS:
        part = value("result", record, every=True) | changed(record)
        for key in set(DIFFERENTIABLE) & set(ARGUMENTS[task]):
            part[f"gradient of {key}"] = exact(record[f"gradient of {key}"])
        each = record.get("dimensions")
        shown = {"each dimension": exact(each)} if isinstance(each, Tensor) else {}
        return {"result": part, SHOWN: shown}
    if task == "sample_x":
        return describe_sample_x(inputs, record)
    if task == "visualize_samples":
        return {"picture": describe_pictures(inputs, record), "z": prior_latents(record)}
    return describe_bound(task, inputs, record)


def value(name: str, record: Record, every: bool = False) -> Part:
    """A result by its type, its shape, and its values if there are few."""
    part: Part = {}
    if kind := record.get(f"{name} is"):
        part[f"{name} is {kind}"] = Quantity()
    result = record.get(name)
    if isinstance(result, Tensor):
        if result.dim() > 1 + every or (every and result.shape[1:] != (3,)):
            part[f"{name} has the shape {' x '.join(map(str, result.shape[1:]))}"] = Quantity()
        x = result.double().reshape(len(result), -1)
        part[name] = average(x if x.shape[1] <= 9 else x.mean(1, keepdim=True))
    return part


def changed(record: Record) -> Part:
    """Whether the function changed its arguments."""
    return {f"{record['changed']} is changed in place": Quantity()} if "changed" in record else {}


def moments(z: Tensor, m: Tensor, v: Tensor, calls: int = 1) -> Part:
    """Moments of samples (rows, dim) of the posteriors N(m, v), each (n, dim), in turn."""
    n = len(m)
    is_constant = calls > 1 and all(torch.equal(x, z[: len(x)]) for x in z.chunk(calls))
    z = z.double()[: len(z) // n * n].view(-1, *m.shape)
    distances = z - z.mean(0)
    noise = (z - m) / v.sqrt()
    each_call = noise.flatten(0, 1).chunk(calls)
    if not is_constant and all((x.amax(0) - x.amin(0)).max() < 1e-3 for x in each_call):
        part = {"all images have the same noise": Quantity()}
        same = (noise[..., 0] - noise[..., -1]).abs().max() < 1e-3
        return part | ({"all dimensions have the same noise": Quantity()} if same else {})
    part = {
        "mean of z": average(z),
        "variance of z": average(distances**2),
        "mean of the standardized noise": average(noise.flatten()[:, None]),
        "variance of the noise": average(noise.flatten()[:, None] ** 2),
        "mean size of the noise": average(noise.abs().flatten()[:, None]),
        "covariance of the dimensions of z": average(distances[..., :-1] * distances[..., 1:]),
        "share of different z": exact(
            round(len(z.flatten(0, 1).unique(dim=0)) / z[..., 0].numel(), 2)
        ),
    }
    # The autocorrelation over the batch, by the theorem of Wiener and Khinchin.
    series = (distances / distances.square().mean(0).sqrt().clamp(1e-30)).flatten(0, 1)
    power = torch.fft.rfft(series, n=2 * len(series), dim=0).abs() ** 2
    at_lags = torch.fft.irfft(power, n=2 * len(series), dim=0)[1 : len(series)] / len(series)
    correlation = at_lags.nan_to_num().abs().amax().item() if len(series) > 3 else 0.0
    related = correlation if correlation > 7 / len(series) ** 0.5 else 0.0
    return part | {"correlation of the noise of different images": Quantity([related], [0.02])}


def nearly(share: Tensor) -> Quantity:
    """Shares of gradients: exactly 1 where all is right, and else as random as the samples."""
    return Quantity(share.flatten().tolist(), [0.01] * share.numel())


def prior_latents(record: Record) -> Part:
    """The moments of latents of the prior."""
    z = record.get("z")
    if not isinstance(z, Tensor):
        return {"no z is decoded": Quantity()}
    return moments(z, torch.zeros(1, z.shape[1]), torch.ones(1, z.shape[1]))


def describe_sample_gaussian(inputs: Inputs, record: Record) -> Answers:
    """Samples, and shares of the gradients that arrive at m and v."""
    z, m, v = record["second"][0].double(), inputs["m"], inputs["v"]
    if z.dim() != 2 or z.shape[1] != 2:
        return {"result": value("second", record)}
    part = moments(torch.cat([record["first"][0], record["second"][0]]), m, v, 2) | changed(record)
    if torch.equal(record["first"], record["second"]):
        part["each call returns the same samples"] = Quantity()
    pairs = z.view(-1, *m.shape)
    arrived = torch.zeros(2, *m.shape)
    if "gradient of m" in record:
        arrived[0] = record["gradient of m"] / len(pairs)
        arrived[1] = record["gradient of v"] / ((pairs - m) ** 2 / (2 * v)).sum(0)
    part["share of the gradient that reaches m"] = exact(arrived[0])
    part["share of the gradient that reaches v"] = nearly(arrived[1])
    return {"z": part}


def describe_bound(task: str, inputs: Inputs, record: Record) -> Answers:
    """Each result of a bound. NELBO is described by its difference from the sum of the others."""
    is_iwae = "iwae" in task
    answers: Answers = {SHOWN: {}}
    for name in BOUND:
        part = answers[name] = value(name, record)
        if name in record:
            answers[SHOWN][name] = average(
                record[name].double().reshape(len(record[name]), -1).mean(1, keepdim=True)
            )
        if is_iwae and part.keys() == {name}:
            answers[name] = by_samples(name, record[name])
        elif name != "NELBO" and name in part and part[name].errors[0] > 1e-4:
            part[f"{name} differs between two calls"] = Quantity()
    counts = record["latents"]
    if is_iwae:
        shares = [round(counts[i :: len(SAMPLES)].mean().item(), 1) for i in range(len(SAMPLES))]
        key = f"decoded latents for each that iw = {', '.join(map(str, SAMPLES))} asks for"
        answers["samples"] = {key: exact(torch.tensor(shares))}
        return answers
    if all(answers[name].get(name) and record[name].dim() == 1 for name in BOUND):
        del answers["NELBO"]["NELBO"]
        answers["NELBO"] |= combination(*(record[name].double() for name in BOUND))
    if not isinstance(record.get("z"), Tensor):
        answers["z"] = {"no z is decoded": Quantity()}
        return answers
    answers["z"] = moments(record["z"], inputs["m"], inputs["v"], len(record["latents"]))
    describe_gradients(answers, inputs, record)
    return answers


def combination(nelbo: Tensor, kl: Tensor, rec: Tensor) -> Part:
    """The factors of KL and REC in NELBO, whatever these are; or its difference from their sum."""
    for a, b in product(FACTORS, FACTORS):
        if ((nelbo - a * kl - b * rec).abs() < 1e-4 + 2e-5 * nelbo.abs()).all():
            return {f"NELBO is {a} KL + {b} REC": Quantity()}
    return {"NELBO - (KL + REC)": average((nelbo - kl - rec)[:, None])}


def by_samples(name: str, values: Tensor) -> Part:
    """A result of the importance-weighted bound for each number of samples."""
    groups = values.double().split(len(SAMPLES))
    n = len(values) // len(SAMPLES) * len(SAMPLES)
    calls = values.double()[:n].view(-1, len(SAMPLES))
    spread = (calls - calls.mean(0)).square().sum(0) / (len(groups) - 1)
    error = (spread.mean() / 3).sqrt().item() + 0.02 * (name == "KL")
    means = zip(SAMPLES, calls.mean(0).tolist(), strict=True)
    return {f"{name} with {iw} samples": Quantity([mean], [error]) for iw, mean in means}


def describe_gradients(answers: Answers, inputs: Inputs, record: Record) -> None:
    """Add gradients to the parts of the ELBO: of KL at m and v, and through z, without noise."""
    m, v = inputs["m"].double(), inputs["v"].double()
    keys = ("m", "v", "decoder")
    zero = {"m": 0 * m, "v": 0 * m, "decoder": torch.zeros(()).double()}
    of = {
        name: {key: record[f"gradient of {name} at {key}"].double() for key in keys}
        for name in BOUND
        if f"gradient of {name} at m" in record
    }
    total = of.get("NELBO", zero)
    at_z = record.get("gradient at z")
    path = dict(zero)
    if isinstance(at_z, Tensor):
        n = len(at_z) // len(m) * len(m)
        z, each = (x.double()[-n:].view(-1, *m.shape) for x in (record["z"], at_z))
        # The gradient at z is z times a slope that depends on the image.
        answers["REC"][SLOPE] = average(each / z * n)
        path |= {"m": each.sum(0), "v": (each * (z - m) / (2 * v)).sum(0)}
    z = record["last z"].double()
    z = z[: len(z) // len(m) * len(m)].view(-1, *m.shape)
    for key, terms in (("m", z), ("v", z * (z - m) / (2 * v))):
        found, expected = record[f"gradient of z at {key}"].double(), terms.sum(0)
        near = (found - expected).abs() <= 1e-4 * terms.abs().sum(0)
        share = torch.where(near, 1.0, found / expected)
        answers["z"][f"share of the gradient that reaches {key} through z"] = nearly(share)
    # A result that is returned without its gradient may still be right: NELBO's is used then.
    if "KL" not in of:
        rec = of.get("REC") or path | {"decoder": total["decoder"]}
        of["KL"] = {key: total[key] - rec[key] for key in keys}
    if "REC" not in of:
        of["REC"] = {key: total[key] - of["KL"][key] for key in keys}
    for key in ("m", "v"):
        if "KL differs between two calls" not in answers["KL"]:  # else it is random
            answers["KL"][f"gradient of KL at {key}"] = exact(of["KL"][key])
    answers["REC"]["gradient of REC at the decoder"] = exact(of["REC"]["decoder"])
    if "NELBO is 1 KL + 1 REC" in answers["NELBO"]:
        for key in keys:
            rest = total[key] - of["KL"][key] - of["REC"][key]
            slack = 1e-4 * (1 + total[key].abs() + of["KL"][key].abs())
            rest = torch.where(rest.abs() < slack, 0, rest)
            answers["NELBO"][f"gradient of NELBO - (KL + REC) at {key}"] = exact(rest)


def describe_sample_x(inputs: Inputs, record: Record) -> Answers:
    """Moments of sampled pixels: of those of each probability, and of their latents."""
    part = value("result", record)
    x = record.get("result")
    if isinstance(x, Tensor) and x.dim() == 3 and x.shape[-1] == 784:
        x = x.double()
        part = {
            f"images of {list(x.shape[1:])}": Quantity(),
            "values other than 0 and 1": exact(
                round(((x != 0) & (x != 1)).double().mean().item(), 2)
            ),
        }
        x = x.flatten(0, 1)
        part["share of different images"] = exact(round(len(x.unique(dim=0)) / len(x), 1))
        for logit in PIXEL_LOGITS:
            pixels = x[:, inputs["logits"] == logit]
            p = logit.sigmoid().item()
            by_image, by_pixel = (average(pixels.mean(i)[:, None]) for i in (1, 0))
            errors = [max(*by_image.errors, *by_pixel.errors)]
            part[f"mean of pixels whose probability is {p:.2f}"] = Quantity(by_image.values, errors)
            if 0 < p < 1:  # The variance of means is p (1 - p) / n if all pixels are independent.
                for i, whose in enumerate(("different images", "an image")):
                    means = pixels.mean(i) - p
                    ratio = means.square().mean().item() * pixels.shape[i] / (p * (1 - p))
                    error = max(2 / len(means) ** 0.5, 0.3 * ratio)
                    key = f"dependence of such pixels of {whose} ({p:.2f})"
                    part[key] = Quantity([round(ratio, 3)], [error])
    return {"result": part, "z": prior_latents(record)}
