"""Inputs for the function of each task: random tensors, and networks whose results are known."""

import json
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from assignment import ROOT

Inputs = dict[str, Tensor]
NUMBERS = ROOT / "assignment" / "numbers.json"

# The random inputs are near these numbers, at which every known mistake changes the answer.
M = torch.tensor([[0.5, 0.95], [1.5, 0.3], [0.15, 0.7]])
V = torch.tensor([[0.25, 4.0], [2.0, 0.0025], [0.8, 0.15]])
V_OF_WEIGHTS = torch.tensor([[0.6, 1.5], [1.7, 0.7], [0.5, 0.8]])
# The random pixels in the middle of a picture's images, in blocks of 4 x 4 pixels.
PATTERN = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])


@cache
def numbers() -> Any:
    """The test images, and for each task right and wrong answers to the inputs of seed 0."""
    return json.loads(NUMBERS.read_text())


def ask(task: str, seed: int) -> Inputs:
    """Inputs for a task, different for each seed; for "train" the assignment's test images."""
    if task == "train":
        packed = np.frombuffer(bytes.fromhex(numbers()["images"]), np.uint8)
        return {"images": torch.from_numpy(np.unpackbits(packed)).float().view(-1, 784)}
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def near(values: Tensor) -> Tensor:
        return values * uniform(0.85, 1.15, *values.shape)

    def signs(*shape: int) -> Tensor:
        return 1.0 - 2 * torch.randint(2, shape, generator=generator)

    logits = uniform(-2, 3, 784)
    # Their log probabilities differ by more than 100 nats, so that exp of a difference is 0.
    ones = torch.stack([logits.sigmoid(), torch.full((784,), 0.5), 1 - logits.sigmoid()])
    inputs = {"x": torch.bernoulli(ones, generator=generator), "logits": logits}
    inputs |= {"m": near(M) * signs(3, 2), "v": near(V)}
    # The last one is near the posterior, so that its KL is small.
    other_m = torch.cat([near(M)[:2].flip(0) * signs(2, 2), inputs["m"][2:] + 0.05])
    inputs |= {"other m": other_m, "other v": near(V).flip(0).clamp(0.4)}
    inputs["other v"][2] = 1.2 * inputs["v"][2]
    if task == "negative_elbo_bound":
        inputs["slopes"] = torch.randn(2, 784, generator=generator)
    if task == "negative_iwae_bound":
        # With a factor of 1 and v of 1 the posterior would be exact, and the weights constant.
        inputs["v"] = near(V_OF_WEIGHTS)
        residual = inputs["x"] - logits.sigmoid()
        inputs["slopes"] = (torch.linalg.pinv(residual) @ (2 * inputs["m"])).T
    # Logits of all sizes. Those of the later two images break functions that round or overflow.
    bits = torch.tensor([[1.0, 0, 1], [1, 1, 1], [1, 0, 1]])
    sizes = torch.tensor([[1.0, 1, 1], [-160, 1, -30], [175, 30, 1]])
    inputs |= {"bits": bits, "logits of bits": near(torch.where(sizes == 1, signs(3, 3), sizes))}
    if task in ("sample_x", "visualize_samples"):
        inputs |= {"m": signs(3, 10), "v": torch.full((3, 10), 0.3)}  # z has ten dimensions
    if task == "visualize_samples":
        # In one picture the pattern is random, in the other one the rest of the middle is 1.
        logit = uniform(0.2, 0.5) * signs()
        for name, blocks in (
            ("random", PATTERN * (logit + 200)),
            ("constant", 400 - 400 * PATTERN),
        ):
            middle = blocks.kron(torch.ones(4, 4)) - 200
            inputs[f"{name} logits"] = pad(middle, (4, 4, 8, 8), value=-200).flatten()
    return inputs


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

    def __init__(self, inputs: Inputs, varies: bool):
        super().__init__()
        self.logits, self.slopes = inputs["logits"], inputs.get("slopes")
        self.varies = varies
        self.calls: list[tuple[Tensor, Tensor]] = []  # z and the leaf that is added to it
        self.shift = torch.zeros((), requires_grad=True)

    def decode(self, z: Tensor) -> Tensor:
        """The logits. In the ELBO they do not vary with z; the leaf has their gradient."""
        leaf = torch.zeros_like(z, requires_grad=True)
        self.calls.append((z, leaf))
        if self.slopes is None:
            return self.logits.expand(*z.shape[:-1], 784) + 0 * z[..., :1]
        change = z + leaf if self.varies else leaf
        return self.logits + self.shift + change @ self.slopes

    net = forward = decode
