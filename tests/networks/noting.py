"""The tiny networks, which record the latents and parameters of each process in a file.

The posterior equals the prior, so that the latents are the noise.
"""

import os

import torch
from torch import Tensor

from codebase.models.nns import tiny


class Encoder(tiny.Encoder):
    """Mean 0 and variance 1 for each image."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z | x), each (batch, z_dim), for x of (batch, 784)."""
        m, v = super().encode(x)
        return 0 * m, 0 * v + 1

    forward = encode


class Decoder(tiny.Decoder):
    """Records the latents and the parameters of each training step."""

    def __init__(self, z_dim: int):
        super().__init__(z_dim)
        self.noted = []

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x | z), (batch, 784), for z of (batch, z_dim)."""
        if torch.is_grad_enabled():
            parameters = [p.detach().clone() for p in self.parameters()]
            self.noted.append((z.detach(), parameters))
            torch.save(self.noted, f"noted-{os.environ['RANK']}.pt")
        return super().decode(z)

    forward = decode
