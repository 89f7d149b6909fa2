"""The assignment's hundred images, the order in which images train, and how they become bits."""

import hashlib
import math
from itertools import islice

import pytest
import torch

from codebase import data
from codebase.datasets.loading import load

CPU = torch.device("cpu")
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

# The assignment's own table: for each digit, positions among the test images of that digit.
POSITIONS = """
0: 684 559 629 192 835 763 707 359   9 723
1: 277 599 1094 600 314 705 551 87 174 849
2: 537 845  72 777 115 976 755 448 850  99
3: 984 177 755 797 659 147 910 423 288 961
4: 265 697 639 544 543 714 244 151 675 510
5: 459 882 183  28 802 128 128  53 550 488
6: 756 273 335 388 617  42 442 543 888 257
7:  57 291 779 430  91 398 611 908 633  84
8: 203 324 774 964  47 639 131 972 868 180
9: 1000 846 143 660 227 954 791 719 909 373
"""
# SHA-256 of the 100 images one after the other, of 784 bytes each.
REPORT_SHA256 = "cca7736cc034a489d6ccd71b91b8276ead34c7dd6d3c64d23a760d277e8b4c80"


def table():
    lines = (line.split() for line in POSITIONS.strip().splitlines())
    return {int(digit.rstrip(":")): [*map(int, positions)] for digit, *positions in lines}


def test_the_assignments_images_are_at_the_assignments_positions():
    labels = torch.arange(10, dtype=torch.uint8).repeat_interleave(torch.tensor(TEST_COUNTS))
    labels = labels[torch.randperm(10000)]
    found = {digit: [] for digit in range(10)}
    for row, label in enumerate(labels.tolist()):
        found[label].append(row)
    rows = data.subset_rows(labels)
    assert rows.dtype == torch.int64
    assert rows.tolist() == [found[digit][i] for digit in range(10) for i in table()[digit]]


def test_the_assignments_images_of_mnist(mnist_dir):
    images = load("mnist", mnist_dir)
    rows = data.subset_rows(images.test_labels)
    assert images.test_labels[rows].tolist() == [digit for digit in range(10) for _ in range(10)]
    pixels = images.test[rows].numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest() == REPORT_SHA256
    # The assignment lists one image of a 5 twice.
    assert rows[55] == rows[56]
    assert len(rows.unique()) == 99


def test_with_fewer_images_of_a_digit_its_positions_start_over():
    labels = torch.arange(10, dtype=torch.uint8).repeat(7)
    rows = data.subset_rows(labels).view(10, 10)
    for digit in range(10):
        assert rows[digit].tolist() == [10 * (i % 7) + digit for i in table()[digit]]


def some_batches(number, n=1000, run=0, step=0, size=100):
    return list(islice(data.batch_rows(n, size, run, CPU, step), number))


def test_an_epoch_has_every_image_once_and_a_new_order_each_time():
    batches = some_batches(30)
    assert all((rows.shape, rows.dtype) == ((100,), torch.int64) for rows in batches)
    orders = [torch.cat(batches[i : i + 10]).tolist() for i in (0, 10, 20)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_an_order_belongs_to_the_run_and_the_epoch_alone():
    first = torch.cat(some_batches(20, run=3))
    state = torch.manual_seed(7).get_state()  # whatever else is drawn
    again, other = (torch.cat(some_batches(20, run=run)) for run in (3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first[:1000], other[:1000])
    assert not torch.equal(first[1000:], other[1000:])
    assert torch.equal(first, torch.cat(some_batches(50, run=3, size=40)))


def test_the_order_goes_on_at_any_step():
    whole = some_batches(25)
    for step in (1, 9, 10, 11, 20):
        rest = some_batches(25 - step, step=step)
        assert torch.equal(torch.cat(rest), torch.cat(whole[step:]))


def test_an_incomplete_batch_is_left_out():
    batches = some_batches(8, n=77, size=19)
    assert [len(rows) for rows in batches] == [19] * 8
    assert all(len(torch.cat(batches[i : i + 4]).unique()) == 76 for i in (0, 4))
    last = some_batches(3, n=77, size=19, step=7)
    assert torch.equal(last[0], batches[7])
    assert torch.equal(torch.cat(last[1:]), torch.cat(some_batches(10, n=77, size=19)[8:]))


def test_in_an_order_every_image_has_the_same_chance_of_every_place():
    orders = torch.stack([torch.cat(some_batches(2, n=10, size=5, run=run)) for run in range(1000)])
    for places in (orders, orders.argsort(1)):
        for place in places.T:
            # Chi-squared, with mean 9 and variance 18.
            counts = place.bincount(minlength=10)
            assert ((counts - 100) ** 2 / 100).sum() < 9 + 6 * math.sqrt(18)


def test_binarize_draws_each_pixel_from_its_value():
    n, values = 20_000, torch.arange(256, dtype=torch.uint8)
    pixels = values.repeat(n, 1)
    draws = data.binarize(pixels)
    assert draws.shape == (n, 256)
    assert draws.dtype == torch.float32
    assert draws.unique().tolist() == [0, 1]
    assert torch.equal(pixels, values.expand(n, 256))
    assert not draws[:, 0].any()
    assert draws[:, 255].all()
    p = values.double()[1:255] / 255
    surprise = (draws[:, 1:255].double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    # Standard normal numbers, and were the levels 254 or 256 their slope would be far from 0.
    assert surprise.abs().max() < 5
    assert abs(surprise.mean()) < 4 / math.sqrt(254)
    assert abs((surprise * (p - 0.5) * math.sqrt(12)).mean()) < 4 / math.sqrt(254)


def test_binarize_draws_each_pixel_by_itself():
    draws = 2 * data.binarize(torch.full((4000, 60), 127, dtype=torch.uint8)) - 1
    for matrix in (draws, draws.T):
        products = matrix.T @ matrix / len(matrix)
        products.fill_diagonal_(0)
        assert products.abs().max() < 6 / math.sqrt(len(matrix))


@pytest.mark.parametrize("shape", [(784,), (3, 784), (2, 3, 784)])
def test_binarize_keeps_the_shape(shape):
    assert data.binarize(torch.zeros(shape, dtype=torch.uint8)).shape == shape


def test_binarize_draws_from_the_global_source():
    """So that the seed of a step decides its pixels."""
    pixels = torch.randint(256, (50, 784), dtype=torch.uint8)
    torch.manual_seed(1)
    first, second = data.binarize(pixels), data.binarize(pixels)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, data.binarize(pixels))
    assert torch.equal(second, data.binarize(pixels))
