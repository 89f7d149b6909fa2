"""The synthetic digits, against their strokes drawn in numpy without any randomness."""

import numpy as np
import pytest
import torch

from codebase import synthetic

N = 200


@pytest.fixture(scope="module")
def digits():
    """Some images of every digit, (10, N, 28, 28), from 0 for paper to 1 for ink."""
    images, labels = synthetic.draw_digits([N] * 10, torch.Generator().manual_seed(0))
    return torch.stack([images[labels == digit] for digit in range(10)]).view(10, N, 28, 28) / 255


def curve(points):
    """Points close together on the Catmull-Rom curve through the points of one stroke."""
    points = np.array([points[0], *points, points[-1]], dtype=float)
    t = np.linspace(0, 1, 50)[:, None]
    basis = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    powers = np.concatenate([t**0, t, t**2, t**3], 1)
    return np.concatenate([powers @ basis @ points[i : i + 4] for i in range(len(points) - 3)])


def template(digit):
    """The digit without randomness, (28, 28): 15 pixels wide, 17 high, leaning to the right."""
    points = np.concatenate([curve(stroke) for stroke in synthetic.STROKES[digit]])
    x = 13.5 + 7.5 * points[:, 0] - 0.15 * 8.5 * points[:, 1]
    y = 13.5 + 8.5 * points[:, 1]
    rows, columns = np.mgrid[:28, :28]
    distance = np.hypot(columns[..., None] - x, rows[..., None] - y).min(-1)
    return np.clip(1.25 + 0.5 - distance, 0, 1)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


TEMPLATES = [template(digit) for digit in range(10)]
DIGITS = pytest.mark.parametrize("digit", range(10))


def moments(images):
    """Ink, centre (x, y), half width, half height and slant of images (n, 28, 28)."""
    rows, columns = np.mgrid[:28, :28]
    ink = images.sum((1, 2))

    def mean(values):
        return (images * values).sum((1, 2)) / ink

    x, y = mean(columns), mean(rows)
    across, down = columns - x[:, None, None], rows - y[:, None, None]
    height = np.sqrt(mean(down**2))
    slant = -mean(across * down) / height**2
    return ink, x, y, np.sqrt(mean(across**2)), height, slant


@DIGITS
def test_the_mean_image_is_the_digit_as_its_strokes_say(digits, digit):
    likeness = [correlation(digits[digit].mean(0).numpy(), template) for template in TEMPLATES]
    assert int(np.argmax(likeness)) == digit
    assert likeness[digit] > 0.9


@DIGITS
def test_digits_vary_about_their_strokes_in_place_and_size_and_slant(digits, digit):
    ink, x, y, width, height, slant = moments(digits[digit].numpy())
    ink0, x0, y0, width0, height0, slant0 = (
        values[0] for values in moments(TEMPLATES[digit][None])
    )
    assert ink.mean() == pytest.approx(ink0, rel=0.05)
    assert 0.15 < ink.std() / ink0 < 0.26
    assert abs(x.mean() - x0) < 0.25
    assert abs(y.mean() - y0) < 0.25
    assert 0.55 < x.std() < 1
    assert 0.55 < y.std() < 1
    assert height.mean() == pytest.approx(height0, rel=0.03)
    # Slants of either sign make it wider, a 1 the most.
    assert width0 < width.mean() < (1.3 if digit == 1 else 1.1) * width0
    assert abs(slant.mean() - slant0) < 0.05
    assert 0.3 < height.std() < 0.6
    assert 0.3 < width.std() < 0.6
    assert 0.14 < slant.std() < 0.2


def test_digits_stay_readable(digits):
    pixels = digits.flatten(0, 1)
    border = torch.cat([pixels[:, [0, -1]].flatten(), pixels[:, :, [0, -1]].flatten()])
    assert (border == 0).float().mean() > 0.98
    ink = pixels.flatten(1).sum(1)
    assert ink.min() > 20  # none is only a speck
    assert ink.max() < 784 / 3  # and none a blot
    assert pixels.flatten(1).amax(1).min() == 1
    assert pixels.unique().numel() > 200  # the edges of strokes are grey


def test_digits_can_be_told_apart(digits):
    """The nearest of ten class means names most images of another half, as for MNIST (82 %)."""
    means = digits[:, : N // 2].mean(1).flatten(1)
    others = digits[:, N // 2 :].flatten(2)
    nearest = torch.cdist(others, means).argmin(2)
    assert (nearest == torch.arange(10)[:, None]).float().mean() > 0.8


def test_digits_come_in_the_counts_asked_for_and_in_random_order():
    counts = [5, 0, 7, 40, 1, 2, 3, 4, 33, 6]
    images, labels = synthetic.draw_digits(counts, torch.Generator().manual_seed(0))
    assert images.shape == (101, 784)
    assert labels.shape == (101,)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.bincount().tolist() == counts
    assert not torch.equal(labels, labels.sort().values)


def test_digits_come_from_the_generator_alone_and_none_twice():
    state = torch.manual_seed(1).get_state()
    draws = []
    for seed in (0, 0, 1):
        draws.append(synthetic.draw_digits([20] * 10, torch.Generator().manual_seed(seed)))
        torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, draws[0], draws[1]))
    assert not torch.equal(draws[0][0], draws[2][0])
    assert not torch.equal(draws[0][1], draws[2][1])
    assert len(torch.cat([draws[0][0], draws[2][0]]).unique(dim=0)) == 400
