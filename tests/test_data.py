"""The images: the assignment's 100 of them, their order in training, and their binarization."""

import hashlib
import math
from itertools import islice

import pytest
import torch

from codebase import data
from codebase.datasets.loading import load

CPU = torch.device("cpu")
# SHA-256 of the assignment's table of positions, as Python shows it.
TABLE_SHA256 = "23bd2a90837f6f044feee5cb4ec5dd520f27fbbfe43160fe51ef1d95571f3dad"
# SHA-256 of the binarized pixels of its images of MNIST, a byte each.
BITS_SHA256 = "858ad1d8ff55f3888376cf220f155fa968aff7d02cf120932749f133a7f803bd"


def images_with(test_labels):
    """A data set with these labels, whose test images are all different."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (len(test_labels), 784), dtype=torch.uint8, generator=generator)
    return data.Images("some", pixels[:0], pixels, test_labels)


@pytest.mark.parametrize("n", [1200, 7])  # of each digit; positions start over where n is small
def test_the_subset_is_at_the_assignments_positions(n):
    labels = torch.arange(10, dtype=torch.uint8).repeat(n)[torch.randperm(10 * n)]
    found = [(labels == digit).nonzero().flatten().tolist() for digit in range(10)]
    table = data.SUBSET_POSITIONS
    assert hashlib.sha256(repr(table).encode()).hexdigest() == TABLE_SHA256
    expected = [found[digit][i % n] for digit in range(10) for i in table[digit]]
    assert images_with(labels).subset_indices.tolist() == expected


def test_the_bits_of_the_subset_of_mnist_are_those_of_the_published_results(mnist_dir):
    """A new version of PyTorch must not change them."""
    bits = load("mnist", mnist_dir).subset_bits
    assert hashlib.sha256(bits.bool().numpy().tobytes()).hexdigest() == BITS_SHA256


@pytest.mark.parametrize("labels", [[], range(1, 11), range(5), range(11), [0] * 10])
def test_without_ten_digits_the_subset_is_the_first_hundred_images(labels):
    pixels = torch.zeros(60, 784, dtype=torch.uint8)
    images = data.Images("some", pixels, pixels, torch.tensor([*labels]).repeat(60)[:60])
    assert images.subset_indices.tolist() == [*range(60), *range(40)]


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
    assert images.test_bits is everything


def some_batches(number, n=1000, run=0, step=0, size=100):
    return list(islice(data.batch_indices(n, size, run, CPU, step), number))


def test_each_epoch_of_a_run_has_every_image_once_in_an_order_of_its_own():
    state = torch.manual_seed(7).get_state()
    batches = some_batches(20, run=3) + some_batches(20, run=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert {len(batch) for batch in batches} == {100}
    orders = [torch.cat(batches[i : i + 10]).tolist() for i in (0, 10, 20, 30)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({*map(tuple, orders)}) == 4
    torch.manual_seed(8)  # Other random numbers and the size of the batches do not matter.
    again = torch.cat(some_batches(50, run=3, size=40))
    assert torch.equal(again, torch.cat(batches[:20]))


def test_the_order_continues_from_any_step_and_leaves_incomplete_batches_out():
    batches = torch.stack(some_batches(12, n=77, size=19))
    assert all(len(batches[i : i + 4].unique()) == 76 for i in (0, 4, 8))
    for step in (1, 3, 4, 5, 8):
        rest = torch.stack(some_batches(12 - step, n=77, size=19, step=step))
        assert torch.equal(rest, batches[step:])


def test_binarize_samples_each_pixel_with_its_probability():
    n, values = 20_000, torch.arange(256, dtype=torch.uint8)
    pixels = values.repeat(n, 1)
    bits = data.binarize(pixels)
    assert bits.dtype == torch.float32 and bits.unique().tolist() == [0, 1]
    assert torch.equal(pixels, values.expand(n, 256))
    assert bits[:, 255].all() and not bits[:, 0].any()
    p = values.double()[1:255] / 255
    score = (bits[:, 1:255].double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    # Standard normal numbers. With 254 or 256 levels their slope would be far from 0.
    assert score.abs().max() < 5
    assert abs(score.mean()) < 4 / math.sqrt(254)
    assert abs((score * (p - 0.5) * math.sqrt(12)).mean()) < 4 / math.sqrt(254)
