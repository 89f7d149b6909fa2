"""The synthetic digits: as many as asked for, each another one, and what a person would read."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from torch.nn.functional import avg_pool2d

from codebase.datasets import synthetic

N = 200
DIGITS = pytest.mark.parametrize("digit", range(10))


def draw(counts, seed=0):
    return synthetic.draw(counts, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    """Some images of every digit, (10, N, 28, 28), from 0 for paper to 1 for ink."""
    images, labels = draw([N] * 10)
    return torch.stack([images[labels == digit] for digit in range(10)]).view(10, N, 28, 28) / 255


@pytest.fixture(scope="module")
def pixels(all_synthetic_images):
    """All 70,000 images, (70000, 28, 28) uint8."""
    return torch.cat([all_synthetic_images.train, all_synthetic_images.test]).view(-1, 28, 28)


def test_digits_come_in_the_counts_asked_for_and_in_random_order():
    counts = [5, 0, 7, 40, 1, 302, 3, 4, 33, 6]
    images, labels = draw(counts)
    assert images.shape == (401, 784)
    assert labels.shape == (401,)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.bincount().tolist() == counts
    assert not torch.equal(labels, labels.sort().values)


def test_digits_come_from_the_generator_alone():
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first, second = (synthetic.draw([20] * 10, generator) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, draw([20] * 10)))
    for other in (second, draw([20] * 10, seed=1)):
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[1], other[1])


def test_no_image_comes_twice(pixels):
    assert len({image.tobytes() for image in pixels.numpy()}) == 70000


def test_no_digit_leaves_the_image(pixels):
    assert not pixels[:, [0, -1]].any()
    assert not pixels[:, :, [0, -1]].any()
    assert pixels[:, [2, -3]].any(2).any(0).all()  # though the largest ones come near


def test_there_is_as_much_ink_as_in_mnist(pixels):
    """In MNIST 19 % of the pixels are inked, which with the grey ones are 13 % of full ink."""
    assert 0.16 < (pixels > 0).float().mean() < 0.22
    assert 0.11 < pixels.float().mean() / 255 < 0.15
    ink = pixels.float().sum((1, 2)) / 255
    assert ink.min() > 20  # none is only a speck
    assert ink.max() < 784 / 3  # and none a blot


def test_the_edges_of_strokes_are_grey_and_the_strokes_are_not(pixels):
    levels = pixels.flatten().bincount(minlength=256)
    assert levels[1:255].min() > 0
    assert 0.08 < levels[1:255].sum() / pixels.numel() < 0.16
    # A white pixel beside a black one would be a hard edge.
    beside = (pixels[:, :, 1:] == 255) & (pixels[:, :, :-1] == 0)
    assert beside.sum() < 0.01 * levels[255]
    assert pixels.flatten(1).amax(1).min() > 200


def test_digits_can_be_told_apart(all_synthetic_images):
    """The nearest of ten mean images names more than in MNIST, where it names 82 %."""
    _, train, train_labels, test, test_labels = all_synthetic_images
    means = torch.stack([train[train_labels == digit].float().mean(0) for digit in range(10)])
    right = torch.cdist(test.float(), means).argmin(1) == test_labels
    assert 0.92 < right.float().mean() < 0.99  # if all were right, they would hardly vary
    assert all(right[test_labels == digit].float().mean() > 0.8 for digit in range(10))


def printed(digit):
    """The digit in a typeface that others drew, (28, 28)."""
    canvas = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=28))
    path = TextPath((0, 0), str(digit), 22, prop={"family": "DejaVu Sans", "style": "italic"})
    box = path.get_extents()  # 14 wide, with the space at its sides
    in_the_middle = Affine2D().translate(7, 14 - (box.y0 + box.y1) / 2)
    canvas.figure.add_artist(PathPatch(path, color="black", lw=0, transform=in_the_middle))
    canvas.draw()
    return 1 - torch.tensor(np.asarray(canvas.buffer_rgba())[:, :, 0]) / 255


def what_sets_apart(images):
    """Each of the ten images (10, 28, 28), a little out of focus, less the mean of them all."""
    blurred = avg_pool2d(images, 3, stride=1)
    return (blurred - blurred.mean(0)).flatten(1)


def test_a_label_is_what_a_person_would_read(digits):
    """What sets a digit apart from the others is what sets it apart in a typeface."""
    drawn = what_sets_apart(digits.mean(1))
    font = what_sets_apart(torch.stack([printed(digit) for digit in range(10)]))
    likeness = torch.cat([drawn, font]).corrcoef()[:10, 10:]
    others = likeness.clone().fill_diagonal_(-1)
    assert (likeness.diagonal() > others.amax(1) + 0.05).all()


@DIGITS
def test_digits_vary_in_place_size_slant_and_pen(digits, digit):
    images = digits[digit].double().numpy()
    rows, columns = np.mgrid[:28, :28]
    ink = images.sum((1, 2))

    def mean(values):
        return (images * values).sum((1, 2)) / ink

    x, y = mean(columns), mean(rows)
    across, down = columns - x[:, None, None], rows - y[:, None, None]
    width, height = np.sqrt(mean(across**2)), np.sqrt(mean(down**2))
    slant = mean(across * down) / height**2
    assert 0.5 < x.std() < 1.2
    assert 0.5 < y.std() < 1.2
    assert 0.04 < width.std() / width.mean() < 0.2
    assert 0.04 < height.std() / height.mean() < 0.12
    assert 0.05 < slant.std() < 0.15
    # Much more than the size alone makes of it.
    assert 0.12 < ink.std() / ink.mean() < 0.25


@DIGITS
def test_strokes_are_bent(digits, digit):
    """Place, size, slant and pen alone would take 15 principal components, or 10 for a 1."""
    images = digits[digit].flatten(1)
    variances = torch.linalg.svdvals(images - images.mean(0)).square()
    components = (variances.cumsum(0) < 0.9 * variances.sum()).sum()
    assert components > (12 if digit == 1 else 17)


def test_a_stroke_is_no_row_of_dots(digits):
    assert digits[1, :, 10:18].amax(2).min() > 0.8
