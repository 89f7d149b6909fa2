"""The networks named "v1": three fully connected layers each way."""

from torch import Tensor, nn

from codebase.utils import gaussian_parameters

PIXELS = 28 * 28
HIDDEN = 300


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Three linear layers with ELU between them.

    In place, the gradient of ELU is computed from its output. It is 0 for an input below -17, whose
    output is rounded to -1, where exp(x) < 5e-8 would be exact.
    """
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN),
        nn.ELU(inplace=True),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ELU(inplace=True),
        nn.Linear(HIDDEN, outputs),
    )


class Encoder(nn.Module):
    """The posterior's parameters, given an image."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.net = network(PIXELS, 2 * z_dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z | x), each (batch, z_dim), for x of (batch, 784)."""
        return gaussian_parameters(self.net(x))

    forward = encode  # hand-outs since 2021 call the module itself


class Decoder(nn.Module):
    """The logits of an image's pixels, given a latent."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.net = network(z_dim, PIXELS)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x | z), (batch, 784), for z of (batch, z_dim)."""
        return self.net(z)

    forward = decode
