"""The images: the assignment's 100 of them, their order in training, and their binarization."""

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
# SHA-256 of the 100 images one after another, 784 bytes each.
SUBSET_SHA256 = "cca7736cc034a489d6ccd71b91b8276ead34c7dd6d3c64d23a760d277e8b4c80"


def images_with(test_labels):
    """A data set with these labels, whose test images are all different."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (len(test_labels), 784), dtype=torch.uint8, generator=generator)
    return data.Images("some", pixels[:0], pixels, test_labels)


def table():
    lines = (line.split() for line in POSITIONS.strip().splitlines())
    return {int(digit.rstrip(":")): [*map(int, positions)] for digit, *positions in lines}


def test_the_subset_is_at_the_assignments_positions():
    labels = torch.arange(10, dtype=torch.uint8).repeat_interleave(torch.tensor(TEST_COUNTS))
    labels = labels[torch.randperm(10000)]
    found = {digit: [] for digit in range(10)}
    for index, label in enumerate(labels.tolist()):
        found[label].append(index)
    indices = images_with(labels).subset_indices
    assert indices.dtype == torch.int64
    assert indices.tolist() == [found[digit][i] for digit in range(10) for i in table()[digit]]


def test_the_subset_of_mnist_is_the_assignments(mnist_dir):
    images = load("mnist", mnist_dir)
    indices = images.subset_indices
    assert images.test_labels[indices].tolist() == [digit for digit in range(10) for _ in range(10)]
    pixels = images.test[indices].numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest() == SUBSET_SHA256
    # The assignment lists one image of a 5 twice.
    assert indices[55] == indices[56]
    assert len(indices.unique()) == 99


def test_positions_start_over_if_a_digit_has_fewer_images():
    images = images_with(torch.arange(10, dtype=torch.uint8).repeat(7))
    for digit, indices in enumerate(images.subset_indices.view(10, 10)):
        assert indices.tolist() == [10 * (i % 7) + digit for i in table()[digit]]


@pytest.mark.parametrize("labels", [[], range(1, 27), range(5), range(11), [0] * 10])
@pytest.mark.parametrize("n", [60, 2600])
def test_without_ten_digits_the_subset_is_the_first_hundred_images(labels, n):
    labels = torch.tensor([*labels]).repeat(n)[:n] if labels else torch.empty(0)
    pixels = torch.zeros(n, 784, dtype=torch.uint8)
    images = data.Images("some", pixels, pixels, labels)
    assert images.subset_indices.tolist() == [i % n for i in range(100)]


def test_test_images_are_binarized_once_and_by_the_protocol():
    def protocol(pixels):
        torch.manual_seed(0)
        return torch.bernoulli(pixels.float() / 255)

    images = images_with(torch.arange(10, dtype=torch.uint8).repeat(200))
    state = torch.manual_seed(7).get_state()
    subset, everything = images.subset_bits, images.test_bits
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(subset, protocol(images.test[images.subset_indices]))
    assert torch.equal(everything, protocol(images.test))
    assert images.subset_bits is subset
    assert images.test_bits is everything


def some_batches(number, n=1000, run=0, step=0, size=100):
    return list(islice(data.batch_indices(n, size, run, CPU, step), number))


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    batches = some_batches(30)
    assert all((batch.shape, batch.dtype) == ((100,), torch.int64) for batch in batches)
    orders = [torch.cat(batches[i : i + 10]).tolist() for i in (0, 10, 20)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_order_depends_only_on_the_run_and_the_epoch():
    first = torch.cat(some_batches(20, run=3))
    state = torch.manual_seed(7).get_state()  # other random numbers do not matter
    again, other = (torch.cat(some_batches(20, run=run)) for run in (3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first[:1000], other[:1000])
    assert not torch.equal(first[1000:], other[1000:])
    assert torch.equal(first, torch.cat(some_batches(50, run=3, size=40)))


def test_the_order_continues_from_any_step():
    whole = some_batches(25)
    for step in (1, 9, 10, 11, 20):
        rest = some_batches(25 - step, step=step)
        assert torch.equal(torch.cat(rest), torch.cat(whole[step:]))


def test_an_incomplete_batch_is_left_out():
    batches = some_batches(8, n=77, size=19)
    assert [len(batch) for batch in batches] == [19] * 8
    assert all(len(torch.cat(batches[i : i + 4]).unique()) == 76 for i in (0, 4))
    last = some_batches(3, n=77, size=19, step=7)
    assert torch.equal(last[0], batches[7])
    assert torch.equal(torch.cat(last[1:]), torch.cat(some_batches(10, n=77, size=19)[8:]))


def test_every_image_is_equally_likely_in_every_place():
    orders = torch.stack([torch.cat(some_batches(2, n=10, size=5, run=run)) for run in range(1000)])
    for places in (orders, orders.argsort(1)):
        for place in places.T:
            # Chi-squared, with mean 9 and variance 18.
            counts = place.bincount(minlength=10)
            assert ((counts - 100) ** 2 / 100).sum() < 9 + 6 * math.sqrt(18)


def test_binarize_samples_each_pixel_with_its_probability():
    n, values = 20_000, torch.arange(256, dtype=torch.uint8)
    pixels = values.repeat(n, 1)
    bits = data.binarize(pixels)
    assert bits.shape == (n, 256)
    assert bits.dtype == torch.float32
    assert bits.unique().tolist() == [0, 1]
    assert torch.equal(pixels, values.expand(n, 256))
    assert not bits[:, 0].any()
    assert bits[:, 255].all()
    p = values.double()[1:255] / 255
    score = (bits[:, 1:255].double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    # Standard normal numbers. With 254 or 256 levels their slope would be far from 0.
    assert score.abs().max() < 5
    assert abs(score.mean()) < 4 / math.sqrt(254)
    assert abs((score * (p - 0.5) * math.sqrt(12)).mean()) < 4 / math.sqrt(254)


def test_binarize_samples_pixels_independently():
    signs = 2 * data.binarize(torch.full((4000, 60), 127, dtype=torch.uint8)) - 1
    for matrix in (signs, signs.T):
        products = matrix.T @ matrix / len(matrix)
        products.fill_diagonal_(0)
        assert products.abs().max() < 6 / math.sqrt(len(matrix))


@pytest.mark.parametrize("shape", [(784,), (3, 784), (2, 3, 784)])
def test_binarize_keeps_the_shape(shape):
    assert data.binarize(torch.zeros(shape, dtype=torch.uint8)).shape == shape


def test_binarize_uses_the_global_generator():
    """The seed of a step then determines its pixels."""
    pixels = torch.randint(256, (50, 784), dtype=torch.uint8)
    torch.manual_seed(1)
    first, second = data.binarize(pixels), data.binarize(pixels)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, data.binarize(pixels))
    assert torch.equal(second, data.binarize(pixels))
