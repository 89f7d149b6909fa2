"""The images: their order in training, their binarization, and the test images as bits."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

import torch
from torch import Tensor

from codebase.system.errors import UserError
from codebase.system.seeds import ORDER, seed_for

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
TEST_SEED = 0  # binarizes the test images by the assignment's protocol


@dataclass(frozen=True, eq=False)
class Images:
    """A data set: images (n, 784) uint8 for training, testing and validation.

    The labels of the test images, integers (n,), or (0,) if there are none, are their colours in
    pictures.
    """

    name: str
    train: Tensor
    test: Tensor
    test_labels: Tensor
    valid: Tensor = field(default_factory=lambda: torch.empty(0, 784, dtype=torch.uint8))

    def hold_out(self, n: int) -> "Images":
        """The same data set, whose last n training images are held out for validation.

        Raises UserError if no training image would remain.
        """
        size = len(self.train) - n
        if size < 1:
            limit = f"must be less than the {len(self.train)} training images of {self.name}"
            raise UserError(f"argument --valid: {limit}", 2)
        return replace(self, train=self.train[:size], valid=self.train[size:])

    @cached_property
    def subset_indices(self) -> Tensor:
        """Indices of the assignment's 100 test images, ten of each digit, (100,) int64.

        If the labels are not 0 to 9, these are the first 100 test images.
        """
        if self.test_labels.unique().tolist() != [*range(10)]:
            return torch.arange(100) % len(self.test)
        indices = []
        for digit, positions in enumerate(SUBSET_POSITIONS):
            of_digit = (self.test_labels == digit).nonzero().squeeze(1)
            # Another data set may have fewer images of a digit; then counting starts over.
            indices.append(of_digit[torch.tensor(positions) % len(of_digit)])
        return torch.cat(indices)

    @cached_property
    def subset_bits(self) -> Tensor:
        """The assignment's 100 test images, binarized by its protocol, (100, 784) float32."""
        return _binarize_by_protocol(self.test[self.subset_indices])

    @cached_property
    def test_bits(self) -> Tensor:
        """All test images, binarized by the same protocol, (n, 784) float32."""
        return _binarize_by_protocol(self.test)

    @cached_property
    def valid_bits(self) -> Tensor:
        """The validation images, binarized by the same protocol, (n, 784) float32."""
        return _binarize_by_protocol(self.valid)


def _binarize_by_protocol(images: Tensor) -> Tensor:
    # The protocol's own function on the CPU gives the same bits on every machine.
    return torch.bernoulli(images / 255, generator=torch.Generator().manual_seed(TEST_SEED))


def batch_indices(
    n: int, batch_size: int, run: int, device: torch.device, step: int = 0
) -> Iterator[Tensor]:
    """Yield the indices (batch_size,) of one batch after another, from `step` on, without end.

    Each epoch is a random order of all images, without its last n % batch_size images. The order
    depends only on (run, epoch).
    """
    first, done = divmod(step, n // batch_size)
    for epoch in count(first):
        generator = torch.Generator().manual_seed(seed_for(run, ORDER, epoch))
        order = torch.randperm(n, generator=generator).to(device)
        yield from order[: n - n % batch_size].split(batch_size)[done:]
        done = 0


def binarize(images: Tensor) -> Tensor:
    """Sample every pixel of images (..., 784) uint8 from Bernoulli(value / 255).

    Returns:
        (..., 784) float32, zeros and ones.
    """
    # Integer arithmetic is exact and fast: `value` of the 255 equally likely levels are below it.
    level = torch.empty_like(images).random_(0, 255)
    return level.lt_(images).float()  # in place, because bytes convert faster than booleans
