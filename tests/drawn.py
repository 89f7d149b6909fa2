"""Images and models whose pictures say what they show, and reading a picture as it is seen."""

import io

import numpy as np
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from codebase.data import Images
from codebase.datasets.synthetic import TEST_COUNTS
from codebase.models.vae import VAE
from codebase.pictures.drawing import DPI

# An image here is 7 x 7 blocks of 4 x 4 pixels. Three of its corners are black and one is white, so
# that it looks different in each of the eight ways to turn or mirror it. The 35 blocks in between,
# without the first and the last row, hold numbers.
CORNERS = {0: 1.0, 42: 1.0, 48: 1.0}
NUMBERS = slice(7, 42)


def from_blocks(numbers: Tensor) -> Tensor:
    """Images (n, 784) with the numbers (n, up to 35), each 0 to 1, in their blocks."""
    blocks = torch.zeros(len(numbers), 49)
    blocks[:, list(CORNERS)] = 1.0
    blocks[:, NUMBERS.start : NUMBERS.start + numbers.shape[1]] = numbers
    return blocks.view(-1, 7, 7).repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1)


def to_blocks(images: Tensor) -> Tensor:
    """The numbers (..., 35) in upright images (..., 28, 28), which are checked to be upright."""
    blocks = images.unflatten(-1, (7, 4)).unflatten(-3, (7, 4))[..., :, 1:3, :, 1:3].mean((-3, -1))
    blocks = blocks.flatten(-2)
    for place in (0, 6, 42, 48):
        assert (blocks[..., place] - CORNERS.get(place, 0.0)).abs().max() < 0.1
    return blocks[..., NUMBERS]


def bits(numbers: Tensor) -> Tensor:
    """Whole numbers below 2 ** 14 as their bits (..., 14)."""
    return (numbers[..., None] >> torch.arange(14) & 1).float()


def number(blocks: Tensor) -> Tensor:
    """The whole numbers of their bits, which may be smudged."""
    assert ((blocks[..., :14] - 0.5).abs() > 0.3).all()
    return ((blocks[..., :14] > 0.5).long() << torch.arange(14)).sum(-1)


def numbered_images() -> Images:
    """A data set with as many test images of each digit as MNIST, each with its row number in it.

    A last block of the images is grey, and the same number of pixels are 0 and 1 in it once it is
    binarized, to tell an image from its bits.
    """
    labels = torch.arange(10).repeat_interleave(torch.tensor(TEST_COUNTS))
    labels = labels[torch.randperm(10000, generator=torch.Generator().manual_seed(1))].byte()
    test = from_blocks(bits(torch.arange(10000))).view(-1, 28, 28)
    test[:, 20:24, 24:28] = 128 / 255
    test = (255 * test).round().byte().flatten(1)
    return Images("numbered", test[:100], labels[:100], test, labels)


class Reader(nn.Module):
    """An encoder that knows the posterior of each numbered image."""

    def __init__(self, m: Tensor, v: Tensor):
        super().__init__()
        self.register_buffer("m", m)
        self.register_buffer("v", v)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = number(to_blocks(x.view(-1, 28, 28)))
        return self.m[rows], self.v[rows]

    forward = encode


class Painter(nn.Module):
    """A decoder that paints z from -4 to 4 into the blocks, from white to black."""

    def decode(self, z: Tensor) -> Tensor:
        return from_blocks(z / 8 + 0.5).logit(1e-6)

    forward = decode


def painted(images: Tensor) -> Tensor:
    """The z (..., 35) that upright images (..., 28, 28) were painted with."""
    return 8 * (to_blocks(images) - 0.5)


def known_model(m: Tensor, v: Tensor | None = None) -> VAE:
    """A model with the posterior N(m, v) of each numbered image, m and v (10000, z)."""
    model = VAE(name="known", z_dim=m.shape[1])
    model.enc, model.dec = Reader(m, torch.ones_like(m) if v is None else v), Painter()
    return model


def means(seed: int = 0, z: int = 3) -> Tensor:
    """Means of the numbered images that a decoder can paint, (10000, z)."""
    return torch.randn(10000, z, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)


def lively(z_dim: int) -> VAE:
    """A model of the usual networks whose images and posteriors vary without training."""
    torch.manual_seed(0)
    model = VAE(z_dim=z_dim)
    with torch.no_grad():
        for parameter in [*model.enc.parameters(), *model.dec.parameters()]:
            parameter.mul_(2)
        model.enc.net[4].bias[0] -= 6  # far from the prior
    return model.requires_grad_(False)


def labels(axis) -> list[str]:
    """What is written along an axis."""
    return [label.get_text() for label in axis.get_ticklabels()]


def seen(axes, dpi: int = DPI) -> np.ndarray:
    """What is inside of axes when their figure is drawn, (height, width, 3), 0 to 1."""
    picture = io.BytesIO()
    axes.figure.savefig(picture, format="png", dpi=dpi)
    picture.seek(0)
    pixels = imread(picture)[..., :3]
    height, width, _ = pixels.shape
    box = axes.get_position()
    columns = round(box.x0 * width), round(box.x1 * width)
    rows = round((1 - box.y1) * height), round((1 - box.y0) * height)
    return pixels[slice(*rows), slice(*columns)]


def cells(axes, rows: int, columns: int, margin: int = 0, dpi: int = DPI) -> Tensor:
    """The images of a grid as it is seen, from the top left, (rows, columns, 28, 28), black is 1.

    Args:
        margin: empty pixels of the images between the edge of the axes and the grid.
    """
    pixels = seen(axes, dpi)

    def places(count: int, size: int) -> np.ndarray:
        """The pixels of the picture in the middle of the pixels of the images, along one side."""
        pixel = 30 * np.arange(count)[:, None] + np.arange(28) + 0.5 + margin
        return (pixel / (30 * count - 2 + 2 * margin) * size).astype(int).ravel()

    chosen = pixels[places(rows, len(pixels))][:, places(columns, pixels.shape[1])]
    assert np.ptp(chosen, axis=2).max() == 0  # there is no colour
    dark = torch.from_numpy(1 - chosen[..., 0].astype(np.float32))
    return dark.view(rows, 28, columns, 28).transpose(1, 2)
