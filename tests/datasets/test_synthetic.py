"""The synthetic digits: their number, their variety, and whether a person would recognize them."""

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


def make(counts, seed=0):
    return synthetic.make(counts, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    """N images of each digit, (10, N, 28, 28), from 0 (paper) to 1 (ink)."""
    images, labels = make([N] * 10)
    return torch.stack([images[labels == digit] for digit in range(10)]).view(10, N, 28, 28) / 255


@pytest.fixture(scope="module")
def pixels(all_synthetic_images):
    """All 70,000 images, (70000, 28, 28) uint8."""
    return torch.cat([all_synthetic_images.train, all_synthetic_images.test]).view(-1, 28, 28)


def test_each_digit_has_its_count_and_the_order_is_random():
    counts = [5, 0, 7, 40, 1, 302, 3, 4, 33, 6]
    images, labels = make(counts)
    assert images.shape == (401, 784)
    assert labels.shape == (401,)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.bincount().tolist() == counts
    assert not torch.equal(labels, labels.sort().values)


def test_digits_depend_only_on_the_generator():
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first, second = (synthetic.make([20] * 10, generator) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, make([20] * 10)))
    for other in (second, make([20] * 10, seed=1)):
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[1], other[1])


def test_no_image_comes_twice(pixels):
    assert len({image.tobytes() for image in pixels.numpy()}) == 70000


def test_no_digit_leaves_the_image(pixels):
    assert not pixels[:, [0, -1]].any()
    assert not pixels[:, :, [0, -1]].any()
    assert pixels[:, [2, -3]].any(2).any(0).all()  # the largest ones come near the border


def test_images_have_as_much_ink_as_in_mnist(pixels):
    """In MNIST, 19 % of the pixels have ink, and the mean is 13 % of full ink."""
    assert 0.16 < (pixels > 0).float().mean() < 0.22
    assert 0.11 < pixels.float().mean() / 255 < 0.15
    ink = pixels.float().sum((1, 2)) / 255
    assert ink.min() > 20  # no image is a speck
    assert ink.max() < 784 / 3  # or a blot


def test_strokes_have_full_ink_and_grey_edges(pixels):
    levels = pixels.flatten().bincount(minlength=256)
    assert levels[1:255].min() > 0
    assert 0.08 < levels[1:255].sum() / pixels.numel() < 0.16
    # A white pixel beside a black one would be a hard edge.
    beside = (pixels[:, :, 1:] == 255) & (pixels[:, :, :-1] == 0)
    assert beside.sum() < 0.01 * levels[255]
    assert pixels.flatten(1).amax(1).min() > 200


def test_digits_can_be_classified(all_synthetic_images):
    """The nearest of ten mean images is right more often than in MNIST, with its 82 %."""
    train, train_labels = make([1000] * 10, seed=1)
    test, test_labels = all_synthetic_images.test, all_synthetic_images.test_labels
    means = torch.stack([train[train_labels == digit].float().mean(0) for digit in range(10)])
    right = torch.cdist(test.float(), means).argmin(1) == test_labels
    assert 0.92 < right.float().mean() < 0.99  # with less variety it would always be right
    assert all(right[test_labels == digit].float().mean() > 0.8 for digit in range(10))


def printed(digit):
    """The digit in a typeface, (28, 28)."""
    canvas = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=28))
    path = TextPath((0, 0), str(digit), 22, prop={"family": "DejaVu Sans", "style": "italic"})
    box = path.get_extents()  # with its margins it is 14 wide
    centered = Affine2D().translate(7, 14 - (box.y0 + box.y1) / 2)
    canvas.figure.add_artist(PathPatch(path, color="black", lw=0, transform=centered))
    canvas.draw()
    return 1 - torch.tensor(np.asarray(canvas.buffer_rgba())[:, :, 0]) / 255


def differences(images):
    """Ten blurred images (10, 28, 28) minus their mean."""
    blurred = avg_pool2d(images, 3, stride=1)
    return (blurred - blurred.mean(0)).flatten(1)


def test_a_person_would_read_the_label(digits):
    """Each digit is most similar to the same digit in a typeface."""
    ours = differences(digits.mean(1))
    typeface = differences(torch.stack([printed(digit) for digit in range(10)]))
    similarity = torch.cat([ours, typeface]).corrcoef()[:10, 10:]
    others = similarity.clone().fill_diagonal_(-1)
    assert (similarity.diagonal() > others.amax(1) + 0.05).all()


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
    # The size alone explains much less.
    assert 0.12 < ink.std() / ink.mean() < 0.25


@DIGITS
def test_strokes_are_bent(digits, digit):
    """Place, size, slant and pen alone need 15 principal components, or 10 for a 1."""
    images = digits[digit].flatten(1)
    variances = torch.linalg.svdvals(images - images.mean(0)).square()
    components = (variances.cumsum(0) < 0.9 * variances.sum()).sum()
    assert components > (12 if digit == 1 else 17)


def test_a_stroke_has_no_gaps(digits):
    assert digits[1, :, 10:18].amax(2).min() > 0.8
