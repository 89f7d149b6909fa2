"""An encoder and a decoder of one layer each, which train a hundred steps in an instant."""

from torch import Tensor, nn

from codebase.utils import gaussian_parameters


class Encoder(nn.Module):
    """The posterior's parameters, given an image."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.net = nn.Linear(784, 2 * z_dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z | x), each (batch, z_dim), for x of (batch, 784)."""
        return gaussian_parameters(self.net(x))

    forward = encode


class Decoder(nn.Module):
    """The logits of an image's pixels, given a latent."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.net = nn.Linear(z_dim, 784)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x | z), (batch, 784), for z of (batch, z_dim)."""
        return self.net(z)

    forward = decode
