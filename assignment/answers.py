"""What a solution is asked, and the numbers that its answers are judged by.

The networks here answer the same whatever the latents are, so the bounds are known numbers, however
a solution draws its noise. What was drawn and which gradients came back is looked at by itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Two images and two dimensions: the posteriors, other Gaussians, pixels and their logits.
M, V = torch.tensor([[0.5, -1.0], [1.5, 0.3]]), torch.tensor([[0.25, 4.0], [2.0, 0.1]])
OTHER = torch.tensor([[0.0, 1.0], [-0.5, 0.4]]), torch.tensor([[1.5, 0.5], [3.0, 0.8]])
BITS = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.5, -1.0], [-150.0, 200.0]])
# The same in the size of images, and how the logits rise with z.
X = (torch.arange(784) % torch.tensor([[2], [3]]) == 0).float()
LOGITS, SLOPES = torch.linspace(-2, 3, 784), torch.linspace(-1, 2, 2 * 784).view(2, 784).sin()
# What a picture shows of each image: stairs whose pixels are drawn, where all others are certain.
STAIRS = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
DRAWN = nn.functional.pad(STAIRS.kron(torch.ones(4, 4)), (4, 4, 8, 8)).flatten()
PICTURE = 200 * (DRAWN - 1)


class Networks(nn.Module):
    """An encoder and a decoder in one, which keeps what was decoded."""

    def __init__(self, name: str):
        super().__init__()
        self.m, self.v = nn.Parameter(M.clone()), nn.Parameter(V.clone())
        self.m.grad, self.v.grad = torch.zeros_like(M), torch.zeros_like(V)
        self.latents: list[Tensor] = []  # of one call, each once
        self.logits = PICTURE if name == "visualize_samples" else LOGITS

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (..., 2), of the two images."""
        image = (x[..., 2] == 0).long()
        return self.m[image], self.v[image]

    def decode(self, z: Tensor) -> Tensor:
        """The same logits (..., 784) for all z (..., 2), though gradients pass."""
        latents = z.detach().reshape(-1, 2)
        if not any(torch.equal(latents, each) for each in self.latents):
            self.latents.append(latents)
        return self.logits + (z - z.detach()) @ SLOPES

    def forward(self, given: Tensor) -> Any:
        """Either, since hand-outs of 2021 and later call the networks themselves."""
        return self.encode(given) if given.shape[-1] == 784 else self.decode(given)


def answers(name: str, function: Callable[..., Any], nets: Networks) -> dict[str, list[float]]:
    """Ask the function of that name twice; give its answers by what they are."""
    m, v, x, logits = 1 * nets.m, 1 * nets.v, X.repeat(1_000, 1), BITS[1].clone()
    questions: dict[str, Any] = {
        "sample_gaussian": (m.repeat(8_000, 1), v.repeat(8_000, 1)),
        "negative_elbo_bound": (x,),
        "kl_normal": (m, v, *OTHER),
        "log_bernoulli_with_logits": (BITS[0], logits.requires_grad_()),
        "log_normal": (OTHER[0], m, v),
        # 906 / 6 is odd, so that copies in another order mix images.
        "negative_iwae_bound": (x[:906], 6),
        "sample_x": (100,),
    }
    results, latents = [], []
    for _ in range(2):
        nets.latents = []
        result = function(*questions.get(name, ()))
        # One tensor of the three is taken apart by its user just like a tuple.
        three = "bound" in name and isinstance(result, Tensor) and result.shape == (3,)
        results.append(result.unbind() if three else result)
        latents.append(torch.cat([torch.empty(0, 2), *nets.latents]))
    (first, second), z = results, described("z", torch.cat(latents))
    if name == "visualize_samples":
        return pictured(first, second) | z
    names: tuple[str, ...] = ("NIWAE" if "iwae" in name else "NELBO", "KL", "REC")
    if name == "train":
        return {words: [value] for words, value in zip(names, first, strict=True)}
    if not (isinstance(first, tuple | list) and len(first) == 3):
        names, first, second = ("result",), (first,), (second,)
    seen: dict[str, list[float]] = {}
    for words, one, other in zip(names, first, second, strict=True):
        seen |= described(words, one)
        if described(words, one) == described(words, other):
            seen[f"{words} is the same at each call"] = []
    if isinstance(first[0], Tensor) and first[0].requires_grad:
        (first[0] ** 2 / 8_000 if first[0].numel() > 8 else first[0]).sum().backward()
    if name == "log_bernoulli_with_logits":
        arrived = 0 * logits if logits.grad is None else logits.grad
        return seen | described("gradient of the logits", arrived)
    seen |= gradients(nets, first[0] if name == "sample_gaussian" else latents[0], len(x))
    if "iwae" in name:  # in whatever order the copies of an image are
        z = {words: each for words, each in z.items() if words.startswith("share")}
    return seen | (z if len(latents[0]) else {})


def gradients(nets: Networks, z: Any, images: int) -> dict[str, list[float]]:
    """What reached m and v; where z are draws for the two images in turn, without their chance.

    A draw z of N(m, v) rises with v by (z - m) / 2v, which is as random as the draw is.
    """
    of_m: Any = nets.m.grad
    of_v: Any = nets.v.grad
    names = ("gradient of m", "gradient of v")
    if isinstance(z, Tensor) and z.shape == (16_000, 2):  # of which the squares were summed
        pairs = z.detach().view(-1, 2, 2)
        of_m = of_m / (2 * pairs).mean(0)
        of_v = of_v / (pairs * (pairs - M) / V).mean(0)
        names = ("share of the gradient that reaches m", "share of the gradient that reaches v")
    elif isinstance(z, Tensor) and z.shape == (images, 2):  # decoded for the bound
        slopes = (LOGITS.sigmoid() - X) @ SLOPES.T / 2
        of_v = of_v - slopes * (z.view(-1, 2, 2).mean(0) - M) / (2 * V)
        names = ("gradient of m", "gradient of v, without the chance in z")
    return described(names[0], of_m) | described(names[1], of_v)


def pictured(first: Tensor, second: Tensor) -> dict[str, list[float]]:
    """What two pictures (height, width) show, which differ where pixels are drawn."""
    if first.max() == first.min():
        return {"the picture is empty": []}
    changes = (first - second).abs()
    rows, columns = (_runs((changes > 0.02 * first.abs().max()).any(axis)) for axis in (1, 0))
    seen = {"rows, columns of drawn images": [float(len(rows)), float(len(columns))]}
    if [len(rows), len(columns)] != [10, 20]:
        return seen
    # The stairs of each image and what has changed there, as coarse as no edge of a pixel matters.
    both = torch.stack([first, changes])[:, None]
    cut = [both[..., a:b, c:d] for a, b in rows for c, d in columns]
    tiles = torch.stack([nn.functional.interpolate(x, (6, 10), mode="area")[:, 0] for x in cut])
    moving = nn.functional.avg_pool2d(tiles[:, 1].mean(0, keepdim=True), 2)[0]
    seen["share of the places that are drawn where they should be"] = [
        ((moving > 0.3 * moving.max()) == STAIRS).double().mean().item()
    ]
    # Two images are one where they differ much less than others do.
    distances = torch.cdist(tiles[:, 0].flatten(1), tiles[:, 0].flatten(1), p=1)
    again = (distances < 0.38 * distances.mean()).tril(-1).any(1)
    return seen | {"different images": [float(len(tiles) - again.sum())]}


def _runs(flags: Tensor) -> list[tuple[int, int]]:
    """Where flags (n,) begin to be true, and where they end."""
    edges = nn.functional.pad(flags.int(), (1, 1)).diff()
    starts, ends = ((edges == way).nonzero().flatten().tolist() for way in (1, -1))
    return list(zip(starts, ends, strict=True))


def described(words: str, value: Any) -> dict[str, list[float]]:
    """A tensor's values, or the moments of many, by words with its shape; of all else, its type."""
    if not isinstance(value, Tensor):
        numbers = [float(value)] if isinstance(value, int | float) else []
        return {f"{words} ({type(value).__name__})": numbers}
    values, shape = value.detach().double(), " x ".join(map(str, value.shape))
    named = f"{words} ({shape})" if shape and words != "z" else words
    if value.numel() <= 8:
        return {named: values.flatten().tolist()}
    # Two draws may be equal by chance, hence the rounding.
    shares = {f"share of different values of {words}": len(values.unique()) / values.numel()}
    if value.dim() == 2:
        shares[f"share of different rows of {words}"] = len(values.unique(dim=0)) / len(values)
    pairs = value.shape[-1] == 2 and value.numel() % 4 == 0  # of two images in turn
    values = values.reshape((-1, 2, 2) if pairs else (-1, 1))
    noise = values - values.mean(0)
    moments = {"mean": values, "variance": noise**2, "mean absolute deviation": noise.abs()}
    moments["covariance of the dimensions"] = noise.prod(-1)
    of = {f"{kind} of {words}": each.mean(0).flatten().tolist() for kind, each in moments.items()}
    return {named: []} | {which: [round(share, 2)] for which, share in shares.items()} | of
