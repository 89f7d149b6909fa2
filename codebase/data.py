"""The images: what they are, in which order they train, and how they become bits."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from codebase.system.seeds import ORDER, seed_for

# The data sets that torchvision downloads: its class, which is also the name of its folder, and the
# MD5 sums of the four files. Another one of MNIST's shape needs an entry here and nothing else.
DOWNLOADS = {
    "mnist": (
        "MNIST",
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
}
DATASETS = ("auto", *DOWNLOADS, "synthetic")

# The assignment's 100 test images: row c holds positions among the test images of digit c.
SUBSET_POSITIONS = (
    (684, 559, 629, 192, 835, 763, 707, 359, 9, 723),
    (277, 599, 1094, 600, 314, 705, 551, 87, 174, 849),
    (537, 845, 72, 777, 115, 976, 755, 448, 850, 99),
    (984, 177, 755, 797, 659, 147, 910, 423, 288, 961),
    (265, 697, 639, 544, 543, 714, 244, 151, 675, 510),
    (459, 882, 183, 28, 802, 128, 128, 53, 550, 488),
    (756, 273, 335, 388, 617, 42, 442, 543, 888, 257),
    (57, 291, 779, 430, 91, 398, 611, 908, 633, 84),
    (203, 324, 774, 964, 47, 639, 131, 972, 868, 180),
    (1000, 846, 143, 660, 227, 954, 791, 719, 909, 373),
)


class Images(NamedTuple):
    """A data set: images (n, 784) uint8 and labels (n,) uint8, for training and for testing."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def subset_rows(test_labels: Tensor) -> Tensor:
    """Row numbers of the assignment's 100 test images, ten of each digit, (100,) int64."""
    rows = []
    for digit, positions in enumerate(SUBSET_POSITIONS):
        of_digit = (test_labels == digit).nonzero().squeeze(1)
        # In another data set there may be fewer images of a digit; then it starts over.
        rows.append(of_digit[torch.tensor(positions) % len(of_digit)])
    return torch.cat(rows)


def batch_rows(
    n: int, batch_size: int, run: int, device: torch.device, step: int = 0
) -> Iterator[Tensor]:
    """Row numbers (batch_size,) of one batch after the other from `step` on, without end.

    Within an epoch no image comes twice. An epoch's order is a function of (run, epoch) alone.
    """
    first, done = divmod(step, n // batch_size)
    for epoch in count(first):
        generator = torch.Generator().manual_seed(seed_for(run, ORDER, epoch))
        order = torch.randperm(n, generator=generator).to(device)
        yield from order[: n - n % batch_size].split(batch_size)[done:]
        done = 0


def binarize(images: Tensor) -> Tensor:
    """Draw every pixel of images (..., 784) uint8 from Bernoulli(value / 255).

    Returns:
        (..., 784) float32, zeros and ones.
    """
    # In whole numbers, which is exact and faster: `value` of the 255 possible levels are below it.
    level = torch.empty_like(images).random_(0, 255)
    return level.lt_(images).float()  # in place, since bytes become floats faster than booleans do
