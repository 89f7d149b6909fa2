"""Calls a student's function on fixed inputs and describes its results by numbers, the answers."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

Answers = dict[str, list[float]]  # Each key says in words what its numbers are.
# Two images with two latent dimensions: their posteriors N(M, V), and two other Gaussians.
M, V = torch.tensor([[0.5, -1.0], [1.5, 0.3]]), torch.tensor([[0.25, 4.0], [2.0, 0.1]])
OTHER_M, OTHER_V = torch.tensor([[0.0, 1.0], [-0.5, 0.4]]), torch.tensor([[1.5, 0.5], [3.0, 0.8]])
# Two images with two pixels each, and logits, two of them extreme.
BITS, BIT_LOGITS = torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[0.5, -1], [-150, 200]])
# Two images of full size, the decoder's logits for them, and how the logits change with z.
X = (torch.arange(784) % torch.tensor([[2], [3]]) == 0).float()
LOGITS, SLOPES = torch.linspace(-2, 3, 784), torch.linspace(-1, 2, 2 * 784).view(2, 784).sin()
# The decoder's logits for pictures: within a staircase pixels are random, elsewhere they are 0.
STAIRS = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
PICTURE = 200 * nn.functional.pad(STAIRS.kron(torch.ones(4, 4)), (4, 4, 8, 8)).flatten() - 200


class Networks(nn.Module):
    """An encoder and a decoder in one, which records the latents that it decodes."""

    def __init__(self, task: str):
        super().__init__()
        self.m, self.v = nn.Parameter(M.clone()), nn.Parameter(V.clone())
        self.m.grad, self.v.grad = torch.zeros_like(M), torch.zeros_like(V)
        self.latents: list[Tensor] = []  # The distinct batches of the current call.
        self.logits = PICTURE if task == "visualize_samples" else LOGITS

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (..., 2), of the two images."""
        image = (x[..., 2] == 0).long()
        return self.m[image], self.v[image]

    def decode(self, z: Tensor) -> Tensor:
        """The same logits (..., 784) for every z (..., 2), so noise never changes the bounds."""
        latents = z.detach().reshape(-1, 2)
        if not any(torch.equal(latents, recorded) for recorded in self.latents):
            self.latents.append(latents)
        return self.logits + (z - z.detach()) @ SLOPES

    def forward(self, x_or_z: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Encode images or decode latents: hand-outs since 2021 call the networks themselves."""
        return self.encode(x_or_z) if x_or_z.shape[-1] == 784 else self.decode(x_or_z)


def collect_answers(task: str, function: Callable[..., Any], networks: Networks) -> Answers:
    """Call the task's function twice, and describe its results, latents and gradients."""
    # The products pass gradients on, and a solution may change them in place.
    m, v, x = 1 * networks.m, 1 * networks.v, X.repeat(1_000, 1)
    logits = BIT_LOGITS.clone().requires_grad_()
    arguments: dict[str, tuple[Tensor | int, ...]] = {
        "sample_gaussian": (m.repeat(8_000, 1), v.repeat(8_000, 1)),
        "negative_elbo_bound": (x,),
        "kl_normal": (m, v, OTHER_M, OTHER_V),
        "log_bernoulli_with_logits": (BITS, logits),
        "log_normal": (OTHER_M, m, v),
        "negative_iwae_bound": (x[:906], 6),  # As 906 / 6 is odd, a wrong order mixes the images.
        "sample_x": (100,),
    }
    results, latents = [], []
    for _ in range(2):
        networks.latents = []
        result = function(*arguments.get(task, ()))
        # Callers unpack a tensor of three values just like a tuple.
        triple = "bound" in task and isinstance(result, Tensor) and result.shape == (3,)
        results.append(result.unbind() if triple else result)
        latents.append(torch.cat([torch.empty(0, 2), *networks.latents]))
    first, second = results
    z = describe("z", torch.cat(latents))
    if task == "visualize_samples":
        return describe_pictures(first, second) | z
    names: tuple[str, ...] = ("NIWAE" if "iwae" in task else "NELBO", "KL", "REC")
    if task == "train":
        return {name: [value] for name, value in zip(names, first, strict=True)}
    if not (isinstance(first, tuple | list) and len(first) == 3):
        names, first, second = ("result",), (first,), (second,)
    answers: Answers = {}
    for name, one, other in zip(names, first, second, strict=True):
        answers |= describe(name, one)
        if describe(name, one) == describe(name, other):
            answers[f"{name} is the same at each call"] = []
    if isinstance(first[0], Tensor) and first[0].requires_grad:
        (first[0] ** 2 / 8_000 if first[0].numel() > 8 else first[0]).sum().backward()
    if task == "log_bernoulli_with_logits":
        gradient = 0 * logits if logits.grad is None else logits.grad
        return answers | describe("gradient of the logits", gradient)
    answers |= describe_gradients(networks, first[0] if task == "sample_gaussian" else latents[0])
    if "iwae" in task:  # The copies of an image may be in any order, so moments say nothing.
        z = {key: numbers for key, numbers in z.items() if key.startswith("share")}
    return answers | (z if len(latents[0]) else {})


def describe_gradients(networks: Networks, z: object) -> Answers:
    """Describe the gradients of m and v, and remove their noise if z holds samples in order."""
    # The derivative of a sample z of N(m, v) by v is (z - m) / 2v, which is as random as z.
    m_gradient, v_gradient = cast(Tensor, networks.m.grad), cast(Tensor, networks.v.grad)
    names = ("gradient of m", "gradient of v")
    if isinstance(z, Tensor) and z.shape == (16_000, 2):  # Results: their squares were summed.
        pairs = z.detach().view(-1, 2, 2)
        m_gradient = m_gradient / (2 * pairs).mean(0)
        v_gradient = v_gradient / (pairs * (pairs - M) / V).mean(0)
        names = ("share of the gradient that reaches m", "share of the gradient that reaches v")
    elif isinstance(z, Tensor) and z.shape == (2_000, 2):  # Latents decoded for the bound.
        slopes = (LOGITS.sigmoid() - X) @ SLOPES.T / 2
        v_gradient = v_gradient - slopes * (z.view(-1, 2, 2).mean(0) - M) / (2 * V)
        names = ("gradient of m", "gradient of v, without the chance in z")
    return describe(names[0], m_gradient) | describe(names[1], v_gradient)


def describe_pictures(first: Tensor, second: Tensor) -> Answers:
    """Describe two pictures (height, width), which differ only where pixels are random."""
    if first.max() == first.min():
        return {"the picture is empty": []}
    changes = (first - second).abs()
    changed = changes > 0.02 * first.abs().max()
    rows, columns = _true_intervals(changed.any(1)), _true_intervals(changed.any(0))
    answers = {"rows, columns of drawn images": [float(len(rows)), float(len(columns))]}
    if [len(rows), len(columns)] != [10, 20]:
        return answers
    # Each image and its changes, at a resolution at which the edges of pixels do not matter.
    both = torch.stack([first, changes])[:, None]
    crops = [both[..., a:b, c:d] for a, b in rows for c, d in columns]
    tiles = torch.stack([nn.functional.interpolate(x, (6, 10), mode="area")[:, 0] for x in crops])
    mean_change = nn.functional.avg_pool2d(tiles[:, 1].mean(0, keepdim=True), 2)[0]
    share = ((mean_change > 0.3 * mean_change.max()) == STAIRS).double().mean().item()
    answers["share of the places that are drawn where they should be"] = [share]
    # Two images are the same if they differ much less than images usually do.
    distances = torch.cdist(tiles[:, 0].flatten(1), tiles[:, 0].flatten(1), p=1)
    repeated = (distances < 0.38 * distances.mean()).tril(-1).any(1)
    return answers | {"different images": [float(len(tiles) - repeated.sum())]}


def _true_intervals(flags: Tensor) -> list[tuple[int, int]]:
    """The half-open intervals in which flags (n,) are true."""
    edges = nn.functional.pad(flags.int(), (1, 1)).diff()
    starts, ends = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))


def describe(name: str, value: object) -> Answers:
    """Describe a small tensor by its values, a large one by its moments, all else by its type."""
    if not isinstance(value, Tensor):
        numbers = [float(value)] if isinstance(value, int | float) else []
        return {f"{name} ({type(value).__name__})": numbers}
    values = value.detach().double()
    key = f"{name} ({' x '.join(map(str, value.shape))})" if value.dim() and name != "z" else name
    if value.numel() <= 8:
        return {key: values.flatten().tolist()}
    # Rounded, since two samples may be equal by chance.
    share = round(len(values.unique()) / value.numel(), 2)
    answers = {key: [], f"share of different values of {name}": [share]}
    if value.dim() == 2:
        share = round(len(values.unique(dim=0)) / len(values), 2)
        answers[f"share of different rows of {name}"] = [share]
    pairs = value.shape[-1] == 2 and value.numel() % 4 == 0  # Latents of the two images in turn.
    values = values.reshape((-1, 2, 2) if pairs else (-1, 1))
    noise = values - values.mean(0)
    moments = {"mean": values, "variance": noise**2, "mean absolute deviation": noise.abs()}
    moments["covariance of the dimensions"] = noise.prod(-1)
    return answers | {f"{k} of {name}": x.mean(0).flatten().tolist() for k, x in moments.items()}
