"""The synthetic digits: their number, their ink, and whether a person would recognize them."""

import pytest
import torch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from torch.nn.functional import avg_pool2d

from codebase.datasets import synthetic


def make(counts, seed=0):
    return synthetic.make(counts, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    """200 images of each digit, (10, 200, 28, 28), from 0 (paper) to 1 (ink)."""
    images, labels = make([200] * 10)
    return torch.stack([images[labels == digit] for digit in range(10)]).view(10, 200, 28, 28) / 255


def test_digits_have_their_counts_and_depend_only_on_the_generator():
    counts = [5, 0, 7, 40, 1, 302, 3, 4, 33, 6]
    generator = torch.Generator().manual_seed(0)
    first, second = (synthetic.make(counts, generator) for _ in range(2))
    for images, labels in (first, second):
        assert images.shape == (401, 784) and images.dtype == labels.dtype == torch.uint8
        assert labels.bincount().tolist() == counts
    torch.manual_seed(1)
    assert all(map(torch.equal, first, make(counts)))
    assert not any(map(torch.equal, first, second))  # The order is random, too.


def test_digits_have_as_much_ink_as_in_mnist_grey_edges_and_no_gaps_and_stay_inside(digits):
    """In MNIST, 19 % of the pixels have ink, and the mean is 13 % of full ink."""
    assert 0.16 < (digits > 0).float().mean() < 0.22
    assert 0.11 < digits.mean() < 0.15
    ink = digits.sum((2, 3))
    assert ink.min() > 20 and ink.max() < 784 / 3  # no image is a speck or a blot
    spread = ink.std(1) / ink.mean(1)  # the pen varies, because the size explains much less
    assert spread.min() > 0.12 and spread.max() < 0.25
    assert not digits[..., [0, -1], :].any() and not digits[..., [0, -1]].any()
    # A white pixel beside a black one would be a hard edge.
    beside = (digits[..., 1:] == 1) & (digits[..., :-1] == 0)
    assert beside.sum() < 0.01 * (digits == 1).sum()
    assert digits[1, :, 10:18].amax(2).min() > 0.8


def test_digits_can_be_classified(digits):
    """The nearest of ten mean images is right more often than in MNIST, with its 82 %."""
    train, train_labels = make([1000] * 10, seed=1)
    means = torch.stack([train[train_labels == digit].float().mean(0) for digit in range(10)])
    found = torch.cdist(digits.flatten(2) * 255, means).argmin(2)
    right = (found == torch.arange(10)[:, None]).float()
    assert 0.92 < right.mean() < 0.99  # with less variety it would always be right
    assert right.mean(1).min() > 0.8


def printed(digit):
    """The digit in a typeface, (28, 28)."""
    path = TextPath((0, 0), str(digit), 22, prop={"family": "DejaVu Sans", "style": "italic"})
    box = path.get_extents()  # with its margins it is 14 wide
    x, y = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="xy")
    points = torch.stack([x - 6.5, (box.y0 + box.y1) / 2 + 13.5 - y], 2).view(-1, 2)
    # A point in a hole is in two polygons.
    inside = sum(Path(polygon).contains_points(points) for polygon in path.to_polygons()) % 2
    return torch.from_numpy(inside).view(28, 28).float()


def test_a_person_would_read_the_label(digits):
    """Each blurred digit is most similar to the same digit in a typeface."""
    typeface = torch.stack([printed(digit) for digit in range(10)])
    ours, theirs = (avg_pool2d(images, 3, stride=1) for images in (digits.mean(1), typeface))
    differences = torch.cat([ours - ours.mean(0), theirs - theirs.mean(0)]).flatten(1)
    similarity = differences.corrcoef()[:10, 10:]
    others = similarity.clone().fill_diagonal_(-1)
    assert (similarity.diagonal() > others.amax(1) + 0.05).all()
