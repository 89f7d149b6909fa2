"""Probability, against torch.distributions and closed forms."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase import utils


def normal(m, v):
    return Independent(Normal(m, v.sqrt()), 1)


def gaussians(*shape):
    """A mean and a variance of that shape."""
    return torch.randn(shape).double(), torch.rand(shape).double() * 3 + 0.1


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# The shapes of arguments: the same, or one that is broadcast to the other.
@pytest.mark.parametrize(
    ("shape", "other"), [((5,), (5,)), ((7, 5), (1,)), ((2, 3, 5), (2, 3, 5)), ((2, 3, 5), (3, 5))]
)
def test_divergences_and_densities_are_those_of_torch_distributions(shape, other):
    (m, v), (pm, pv) = gaussians(*shape), gaussians(*other)
    p = normal(pm.expand_as(m), pv.expand_as(m))
    assert_equal(utils.kl_normal(m, v, pm, pv), kl_divergence(normal(m, v), p))
    assert_equal(utils.log_normal(m, pm, pv), p.log_prob(m))
    logits, x = 30 * m, torch.rand(other).double()  # grey pixels, too
    pixels = Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)
    assert_equal(utils.log_bernoulli_with_logits(x, logits), pixels.log_prob(x.expand_as(m)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_arguments_have_finite_values_and_gradients(dtype):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    x = torch.tensor([1, 0, 0, 1], dtype=dtype)
    tiny = torch.full((4,), 1e-8, dtype=dtype, requires_grad=True)
    m = torch.randn(4, dtype=dtype, requires_grad=True)
    zeros, ones = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
    log_p = utils.log_bernoulli_with_logits(x, logits)
    assert log_p.item() == pytest.approx(-2e4)
    kl = utils.kl_normal(m, tiny, zeros, ones) + utils.kl_normal(m, ones, zeros, tiny)
    value = log_p + kl + utils.log_normal(x, m, tiny)
    gradients = torch.autograd.grad(value, (logits, tiny, m))
    assert all(values.isfinite().all() for values in (value, *gradients))


@pytest.mark.parametrize("shapes", [((50, 3), (3,)), ((3,), (50, 3)), ((50, 1), (1, 3))])
def test_samples_of_broadcast_arguments_have_independent_noise(shapes):
    m, v = torch.zeros(1).expand(shapes[0]), torch.ones(1).expand(shapes[1])
    z, other = utils.sample_gaussian(m, v), utils.sample_gaussian(m, v)
    assert z.shape == (50, 3)
    assert len(torch.cat([z, other]).unique()) == 300


def test_gaussian_parameters_are_the_two_halves_of_a_dimension():
    h = torch.randn(3, 8, 2, dtype=torch.float64)
    for each, dim, options in ((h, 1, {"dim": 1}), (h, 2, {}), (h[0, :, 0], 0, {})):
        m, v = utils.gaussian_parameters(each, **options)
        first, second = each.chunk(2, dim)
        assert torch.equal(m, first)
        assert_equal(v, (1 + second.exp()).log() + 1e-8)
    _, smallest = utils.gaussian_parameters(torch.full((2,), -1e4))
    assert torch.equal(smallest, torch.tensor([1e-8]))
    with pytest.raises(ValueError, match="3"):
        utils.gaussian_parameters(torch.zeros(3, 4), dim=0)


def test_log_mean_exp_is_stable_and_correct():
    x = torch.tensor([[1000.0, 1001.0], [-1000.0, -1002.0]])
    expected = [1000 + math.log((1 + math.e) / 2), -1000 + math.log((1 + math.e**-2) / 2)]
    assert utils.log_mean_exp(x, 1).tolist() == pytest.approx(expected)
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    for dim in (0, 1, -1):
        assert_equal(utils.log_mean_exp(x, dim), x.exp().mean(dim).log())


def test_duplicate_repeats_the_whole_batch():
    for x in (torch.randn(2), torch.randn(2, 3, 4)):
        assert torch.equal(utils.duplicate(x, 3), torch.cat([x, x, x]))
