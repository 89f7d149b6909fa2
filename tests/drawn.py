"""Images that contain numbers, models of these images, and how to read figures of them."""

import base64
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.image import imread
from torch import Tensor, nn

from codebase.data import Images
from codebase.datasets.synthetic import TEST_COUNTS
from codebase.models.vae import VAE
from codebase.pictures.drawing import DPI

# An image consists of 7 x 7 blocks of 4 x 4 pixels. The first and the last row of blocks are black,
# and the five rows between them contain up to 35 numbers.


def from_blocks(numbers: Tensor) -> Tensor:
    """Make images (n, 784) with numbers (n, up to 35) from 0 to 1 in their blocks."""
    blocks = F.pad(F.pad(numbers, (0, 35 - numbers.shape[1])), (7, 7), value=1.0).view(-1, 7, 7)
    return blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1)


def to_blocks(images: Tensor) -> Tensor:
    """Read the numbers (..., 35) from images (..., 28, 28)."""
    blocks = images.unflatten(-1, (7, 4)).unflatten(-3, (7, 4))
    return blocks[..., :, 1:3, :, 1:3].mean((-3, -1)).flatten(-2)[..., 7:42]


def bits(numbers: Tensor) -> Tensor:
    """Convert integers below 2 ** 14 to bits (..., 14)."""
    return (numbers[..., None] >> torch.arange(14) & 1).float()


def number(images: Tensor) -> Tensor:
    """Read the integers from images (..., 28, 28); their bits need not be exact."""
    blocks = to_blocks(images)[..., :14]
    assert ((blocks - 0.5).abs() > 0.3).all()
    return ((blocks > 0.5).long() << torch.arange(14)).sum(-1)


@pytest.fixture(scope="session")
def images() -> Images:
    """A data set with MNIST's number of test images of each digit; each contains its index.

    One more block is grey, so that a test can tell an image from its bits.
    """
    labels = torch.arange(10).repeat_interleave(torch.tensor(TEST_COUNTS))
    labels = labels[torch.randperm(10000, generator=torch.Generator().manual_seed(1))].byte()
    test = from_blocks(bits(torch.arange(10000))).view(-1, 28, 28)
    test[:, 20:24, 24:28] = 128 / 255
    test = (255 * test).round().byte().flatten(1)
    return Images("numbered", test[:100], test, labels)


def known_model(m: Tensor) -> VAE:
    """Make a model with the posterior N(m, 1) for each numbered image, m (10000, z).

    It decodes each z from -4 to 4 to the grey of a block, from white to black.
    """

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        means = m[number(x.view(-1, 28, 28))]
        return means, torch.ones_like(means)

    model = VAE(name="known", z_dim=m.shape[1])
    model.enc.encode = encode
    model.dec.decode = lambda z: from_blocks(z / 8 + 0.5).logit(1e-6)
    return model


def painted(images: Tensor) -> Tensor:
    """Read the z (..., 35) of a known model from images (..., 28, 28)."""
    return 8 * (to_blocks(images) - 0.5)


def normal(n: int, z: int) -> Tensor:
    """Sample (n, z) from N(0, I), always the same."""
    return torch.randn(n, z, generator=torch.Generator().manual_seed(0))


def random_model(z_dim: int) -> VAE:
    """Make an untrained model with varied images and posteriors."""
    torch.manual_seed(0)
    model = VAE(z_dim=z_dim).requires_grad_(False)
    for parameter in [*model.enc.parameters(), *model.dec.parameters()]:
        parameter.mul_(2)
    model.enc.net[4].bias[0] -= 6  # far from the prior
    return model


def other_layers() -> VAE:
    """Make a model with a few small layers and another prior."""
    torch.manual_seed(1)
    model = VAE(z_dim=3)
    layers = nn.Linear(784, 7), nn.ELU(0.5), nn.Linear(7, 5), nn.ELU(2.0)
    model.enc.net = nn.Sequential(*layers, nn.Linear(5, 6, bias=False))
    model.dec.net = nn.Sequential(nn.Linear(3, 784))
    model.requires_grad_(False)
    model.enc.net[0].weight.mul_(5)
    model.dec.net[0].weight.mul_(3)
    model.z_prior_m.fill_(0.5)
    model.z_prior_v.fill_(2.0)
    return model


def decoded(text: str, kind: str = "<f4") -> Tensor:
    """Decode numbers that the explorer page holds as text; torch.tensor makes a writable copy."""
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def labels(axis) -> list[str]:
    """The tick labels of an axis."""
    return [label.get_text() for label in axis.get_ticklabels()]


def seen(axes, dpi: int = DPI) -> np.ndarray:
    """The pixels (height, width, 3) inside the axes, from 0 to 1."""
    picture = io.BytesIO()
    axes.figure.savefig(picture, format="png", dpi=dpi)
    pixels = imread(io.BytesIO(picture.getvalue()))[..., :3]
    height, width, _ = pixels.shape
    box = axes.get_position()
    columns = round(box.x0 * width), round(box.x1 * width)
    rows = round((1 - box.y1) * height), round((1 - box.y0) * height)
    return pixels[slice(*rows), slice(*columns)]


def cells(axes, rows: int, columns: int, margin: int = 0, dpi: int = DPI) -> Tensor:
    """Read the images of a grid, (rows, columns, 28, 28) with 1 for black, from the pixels of axes.

    The margin is the number of empty pixels of images between the edges of axes and grid.
    """
    pixels = seen(axes, dpi)
    middles = []  # the middle of each pixel of the images, along both sides
    for count, size in ((rows, len(pixels)), (columns, pixels.shape[1])):
        pixel = 30 * np.arange(count)[:, None] + np.arange(28) + 0.5 + margin
        middles.append((pixel / (30 * count - 2 + 2 * margin) * size).astype(int).ravel())
    chosen = pixels[np.ix_(*middles)]
    assert np.ptp(chosen, axis=2).max() == 0  # grey has no colour
    dark = torch.from_numpy(1 - chosen[..., 0].astype(np.float32))
    return dark.view(rows, 28, columns, 28).transpose(1, 2)
