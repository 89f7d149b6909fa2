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
# The same in the size of images, how the logits rise with z, and a bar whose pixels are drawn.
X = (torch.arange(784) % torch.tensor([[2], [3]]) == 0).float()
LOGITS, SLOPES = torch.linspace(-2, 3, 784), torch.linspace(-1, 2, 2 * 784).view(2, 784).sin()
BAR = nn.functional.pad(torch.zeros(4, 20), (4, 4, 12, 12), value=-200).flatten()


class Networks(nn.Module):
    """An encoder and a decoder in one, which keeps what was decoded."""

    def __init__(self, name: str):
        super().__init__()
        self.m, self.v, self.z = nn.Parameter(M.clone()), nn.Parameter(V.clone()), torch.empty(0, 2)
        self.m.grad, self.v.grad = torch.zeros_like(M), torch.zeros_like(V)
        self.logits = BAR if name == "visualize_samples" else LOGITS

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (..., 2), of the two images."""
        image = (x[..., 2] == 0).long()
        return self.m[image], self.v[image]

    def decode(self, z: Tensor) -> Tensor:
        """The same logits (..., 784) for all z (..., 2), though gradients pass."""
        self.z = torch.cat([self.z, z.detach().reshape(-1, 2)])
        return self.logits + (z - z.detach()) @ SLOPES

    def forward(self, given: Tensor) -> Any:
        """Either, since hand-outs of 2021 and later call the networks themselves."""
        return self.encode(given) if given.shape[-1] == 784 else self.decode(given)


def answers(name: str, function: Callable[..., Any], nets: Networks) -> dict[str, list[float]]:
    """Ask the function of that name twice; give its answers by what they are."""
    m, v, x = 1 * nets.m, 1 * nets.v, X.repeat(100, 1)
    questions: dict[str, Any] = {
        "sample_gaussian": (m.repeat(2_000, 1), v.repeat(2_000, 1)),
        "negative_elbo_bound": (x,),
        "kl_normal": (m, v, *OTHER),
        "log_bernoulli_with_logits": BITS,
        "log_normal": (OTHER[0], m, v),
        "negative_iwae_bound": (x[:80], 4),
        "sample_x": (100,),
    }
    first, second = (function(*questions.get(name, ())) for _ in range(2))
    if name == "visualize_samples":  # two pictures differ in the bars, if pixels are drawn
        changed = (first - second).abs() > 0.02 * first.abs().max()
        lines = [(changed.any(axis).int().diff() == 1).sum().item() for axis in (1, 0)]
        return {"rows, columns of drawn images": lines} | described("z", nets.z)
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
        (first[0] ** 2 if first[0].numel() > 8 else first[0]).sum().backward()
    seen |= described("gradient of m", nets.m.grad) | described("gradient of v", nets.v.grad)
    return seen | (described("z", nets.z) if len(nets.z) and "iwae" not in name else {})


def described(words: str, value: Any) -> dict[str, list[float]]:
    """A tensor's values, or the moments of many, by words with its shape; of all else, its type."""
    if not isinstance(value, Tensor):
        numbers = [float(value)] if isinstance(value, int | float) else []
        return {f"{words} ({type(value).__name__})": numbers}
    values, shape = value.detach().double(), " x ".join(map(str, value.shape))
    named = f"{words} ({shape})" if shape and words != "z" else words
    if value.numel() <= 8:
        return {named: values.flatten().tolist()}
    pairs = value.shape[-1] == 2 and value.numel() % 4 == 0  # of two images in turn
    values = values.reshape((-1, 2, 2) if pairs else (-1, 1))
    noise = values - values.mean(0)
    moments = {"mean": values, "variance": noise**2, "mean absolute deviation": noise.abs()}
    moments["covariance of the dimensions"] = noise.prod(-1)
    of = {f"{kind} of {words}": each.mean(0).flatten().tolist() for kind, each in moments.items()}
    different = round(len(values.unique()) / values.numel(), 2)  # two draws may be equal by chance
    return {named: [], f"share of different values of {words}": [different]} | of
