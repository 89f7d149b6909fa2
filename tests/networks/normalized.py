"""Small networks with batch normalization and dropout, which differ in training and evaluation."""

from torch import nn

from codebase.utils import gaussian_parameters


class Encoder(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Dropout(0.5), nn.Linear(8, 2 * z_dim)
        )

    def encode(self, x):
        return gaussian_parameters(self.net(x))


class Decoder(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(z_dim, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Dropout(0.5), nn.Linear(8, 784)
        )

    def decode(self, z):
        return self.net(z)
