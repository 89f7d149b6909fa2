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
# SHA-256 of the 100 images one after another, 784 bytes each.
SUBSET_SHA256 = "cca7736cc034a489d6ccd71b91b8276ead34c7dd6d3c64d23a760d277e8b4c80"


def images_with(test_labels):
    """A data set with these labels, whose test images are all different."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (len(test_labels), 784), dtype=torch.uint8, generator=generator)
    return data.Images("some", pixels[:0], pixels, test_labels)


@pytest.mark.parametrize("n", [1200, 7])  # of each digit; positions start over where n is small
def test_the_subset_is_at_the_assignments_positions(n):
    labels = torch.arange(10, dtype=torch.uint8).repeat(n)[torch.randperm(10 * n)]
    found = [(labels == digit).nonzero().flatten().tolist() for digit in range(10)]
    indices = images_with(labels).subset_indices
    assert indices.dtype == torch.int64
    table = data.SUBSET_POSITIONS
    assert hashlib.sha256(repr(table).encode()).hexdigest() == TABLE_SHA256
    expected = [found[digit][i % n] for digit in range(10) for i in table[digit]]
    assert indices.tolist() == expected


def test_the_subset_of_mnist_is_the_assignments(mnist_dir):
    images = load("mnist", mnist_dir)
    indices = images.subset_indices
    assert images.test_labels[indices].tolist() == [digit for digit in range(10) for _ in range(10)]
    pixels = images.test[indices].numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest() == SUBSET_SHA256
    # The assignment lists one image of a 5 twice.
    assert indices[55] == indices[56]
    assert len(indices.unique()) == 99


@pytest.mark.parametrize("labels", [[], range(1, 11), range(5), range(11), [0] * 10])
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


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8])
def test_the_order_continues_from_any_step_and_leaves_incomplete_batches_out(step):
    batches = some_batches(12, n=77, size=19)
    assert [len(batch) for batch in batches] == [19] * 12
    assert all(len(torch.cat(batches[i : i + 4]).unique()) == 76 for i in (0, 4, 8))
    rest = some_batches(12 - step, n=77, size=19, step=step)
    assert torch.equal(torch.cat(rest), torch.cat(batches[step:]))


def test_binarize_samples_each_pixel_with_its_probability():
    n, values = 20_000, torch.arange(256, dtype=torch.uint8)
    pixels = values.repeat(n, 1)
    bits = data.binarize(pixels)
    assert (bits.shape, bits.dtype) == ((n, 256), torch.float32)
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


def test_binarize_samples_pixels_independently_by_the_global_generator():
    """The seed of a step then determines its pixels."""
    pixels = torch.full((2, 2000, 60), 127, dtype=torch.uint8)
    torch.manual_seed(1)
    first, second = data.binarize(pixels), data.binarize(pixels)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, data.binarize(pixels))
    signs = 2 * first.view(4000, 60) - 1
    for matrix in (signs, signs.T):
        products = matrix.T @ matrix / len(matrix)
        products.fill_diagonal_(0)
        assert products.abs().max() < 6 / math.sqrt(len(matrix))
