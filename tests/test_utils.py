"""Probability, against torch.distributions, closed forms, Monte Carlo and finite differences."""

import math

import pytest
import torch
from reading import NoReading
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase import utils


def normal(m, v):
    return Independent(Normal(m, v.sqrt()), 1)


def gaussians(*shape, dtype=torch.float64):
    """A mean and a variance of that shape."""
    return torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype) * 3 + 0.1


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


LEADING = [(), (7,), (2, 3, 4)]


@pytest.mark.parametrize("leading", LEADING)
def test_kl_normal_is_that_of_torch_distributions(leading):
    qm, qv = gaussians(*leading, 5)
    pm, pv = gaussians(*leading, 5)
    assert_equal(utils.kl_normal(qm, qv, pm, pv), kl_divergence(normal(qm, qv), normal(pm, pv)))


def test_kl_normal_is_the_mean_log_ratio_of_samples():
    (qm, qv), (pm, pv) = gaussians(3), gaussians(3)
    z = normal(qm, qv).sample((100_000,))
    ratio = utils.log_normal(z, qm, qv) - utils.log_normal(z, pm, pv)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - utils.kl_normal(qm, qv, pm, pv)) < 5 * error


def test_kl_normal_broadcasts_a_prior_of_one_element():
    qm, qv = gaussians(6, 10)
    pm, pv = torch.tensor([0.3]).double(), torch.tensor([1.7]).double()
    expected = kl_divergence(normal(qm, qv), normal(pm.expand(10), pv.expand(10)))
    assert_equal(utils.kl_normal(qm, qv, pm, pv), expected)


@pytest.mark.parametrize("leading", LEADING)
def test_log_normal_is_that_of_torch_distributions(leading):
    m, v = gaussians(*leading, 5)
    x = torch.randn(*leading, 5, dtype=torch.float64)
    assert_equal(utils.log_normal(x, m, v), normal(m, v).log_prob(x))


def test_log_normal_broadcasts_in_both_directions():
    m, v = gaussians(6, 5)
    samples = torch.randn(3, 6, 5, dtype=torch.float64)
    assert_equal(utils.log_normal(samples, m, v), normal(m, v).log_prob(samples))
    prior = torch.tensor([0.3]).double(), torch.tensor([1.7]).double()
    expected = normal(prior[0].expand(5), prior[1].expand(5)).log_prob(samples)
    assert_equal(utils.log_normal(samples, *prior), expected)


@pytest.mark.parametrize("leading", LEADING)
def test_log_bernoulli_is_that_of_torch_distributions(leading):
    logits = 30 * torch.randn(*leading, 9, dtype=torch.float64)
    x = torch.rand(*leading, 9, dtype=torch.float64).round()
    expected = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    assert_equal(utils.log_bernoulli_with_logits(x, logits), expected)


def test_log_bernoulli_of_grey_pixels_is_the_cross_entropy():
    x, logits = torch.rand(4, 9).double(), torch.randn(4, 9).double()
    p = 1 / (1 + (-logits).exp())
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    assert_equal(utils.log_bernoulli_with_logits(x, logits), expected)


def test_log_bernoulli_broadcasts_images_over_samples():
    x, logits = torch.rand(4, 9).round(), torch.randn(3, 4, 9)
    expected = torch.stack([utils.log_bernoulli_with_logits(x, sample) for sample in logits])
    torch.testing.assert_close(utils.log_bernoulli_with_logits(x, logits), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_arguments_have_finite_values_and_gradients(dtype):
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype, requires_grad=True)
    x = torch.tensor([1, 0, 0, 1], dtype=dtype)
    tiny = torch.full((4,), 1e-8, dtype=dtype, requires_grad=True)
    m = torch.randn(4, dtype=dtype, requires_grad=True)
    log_p = utils.log_bernoulli_with_logits(x, logits)
    kl = utils.kl_normal(m, tiny, torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype))
    narrow_prior = utils.kl_normal(m, torch.ones(4, dtype=dtype), torch.zeros(4, dtype=dtype), tiny)
    density = utils.log_normal(x, m, tiny)
    assert log_p.item() == pytest.approx(-2e4)
    values = torch.stack([log_p, kl, narrow_prior, density])
    assert values.isfinite().all()
    gradients = torch.autograd.grad(values.sum(), (logits, tiny, m))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradients_equal_finite_differences():
    def inputs(*shapes):
        return [torch.rand(s, dtype=torch.float64).add(0.1).requires_grad_() for s in shapes]

    def sample_with_fixed_noise(m, v):
        torch.manual_seed(1)
        return utils.sample_gaussian(m, v)

    check = torch.autograd.gradcheck
    assert check(utils.kl_normal, inputs((3, 4), (3, 4), (1,), (1,)))
    assert check(utils.log_normal, inputs((3, 4), (3, 4), (4,)))
    x = torch.rand(3, 4, dtype=torch.float64).round()
    assert check(lambda logits: utils.log_bernoulli_with_logits(x, 9 * logits - 5), inputs((3, 4)))
    assert check(sample_with_fixed_noise, inputs((3, 4), (3, 4)))
    assert check(utils.gaussian_parameters, inputs((3, 4)))
    assert check(lambda x: utils.log_mean_exp(x, 0), inputs((3, 4)))


def test_samples_have_the_moments_of_the_distribution():
    m, v = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.25, 1.0, 4.0])
    z = utils.sample_gaussian(m.expand(200_000, 3), v)
    noise = (z - m) / v.sqrt()
    # Five standard errors of the first four moments of a standard normal.
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        error = math.sqrt(variance / len(noise))
        torch.testing.assert_close(
            noise.pow(power).mean(0), torch.full((3,), float(moment)), rtol=0, atol=5 * error
        )
    correlations = noise.T @ noise / len(noise) - torch.eye(3)
    assert correlations.fill_diagonal_(0).abs().max() < 5 / math.sqrt(len(noise))


@pytest.mark.parametrize("shapes", [((50, 3), (3,)), ((3,), (50, 3)), ((50, 1), (1, 3))])
def test_samples_of_broadcast_arguments_have_independent_noise(shapes):
    m, v = torch.zeros(shapes[0]), torch.ones(shapes[1])
    z = utils.sample_gaussian(m, v)
    assert z.shape == (50, 3)
    assert len(z.unique()) == 150
    expanded = utils.sample_gaussian(torch.zeros(1).expand(50, 3), torch.ones(1))
    assert len(expanded.unique()) == 150
    assert not torch.equal(z, utils.sample_gaussian(m, v))


def test_samples_use_the_noise_of_the_global_generator():
    m, v = gaussians(7, 3)
    torch.manual_seed(5)
    z = utils.sample_gaussian(m, v)
    torch.manual_seed(5)
    assert_equal(z, m + v.sqrt() * torch.randn(7, 3, dtype=torch.float64))


def public_gaussians():
    """The mean and variance of the public grader's reference values."""
    torch.manual_seed(0)
    m = torch.randn(3, 5)
    return m, torch.exp(torch.randn_like(m))


def test_samples_are_those_of_the_public_grader():
    """The grader of XCS236 samples its noise by `randn_like`."""
    m, v = public_gaussians()
    torch.manual_seed(0)
    expected = [
        [3.1794934, -0.5144983, -4.8044348, 0.9323326, -1.5944869],
        [-3.0817423, 1.2388617, 2.1787362, -1.7788546, -0.8472986],
        [-1.7190117, 0.2775235, -1.4334811, 2.1897781, -1.8190975],
    ]
    actual = utils.sample_gaussian(m, v)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-5)


def test_log_densities_are_those_of_the_public_grader():
    m, v = public_gaussians()
    actual = utils.log_normal(utils.sample_gaussian(m, v), m, v)
    expected = torch.tensor([-6.9819622, -7.6092825, -4.8691502])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_gaussian_parameters_are_the_two_halves():
    h = torch.randn(3, 8, 2, dtype=torch.float64)
    m, v = utils.gaussian_parameters(h, dim=1)
    assert torch.equal(m, h[:, :4])
    assert_equal(v, (1 + h[:, 4:].exp()).log() + 1e-8)


def test_gaussian_parameters_split_the_last_dimension_by_default():
    for h in (torch.randn(6), torch.randn(2, 6), torch.randn(2, 4, 6)):
        m, v = utils.gaussian_parameters(h)
        assert torch.equal(m, h[..., :3])
        torch.testing.assert_close(v, (1 + h[..., 3:].exp()).log())


def test_the_smallest_variance_is_the_assignments():
    for dtype in (torch.float32, torch.float64):
        _, v = utils.gaussian_parameters(torch.full((2,), -1e4, dtype=dtype))
        assert torch.equal(v, torch.tensor([1e-8], dtype=dtype))


def test_an_odd_number_of_gaussian_parameters_is_refused():
    with pytest.raises(ValueError, match="odd size 5"):
        utils.gaussian_parameters(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="odd size 3"):
        utils.gaussian_parameters(torch.zeros(3, 4), dim=0)


def test_log_mean_exp_is_stable_and_correct():
    x = torch.tensor([[1000.0, 1001.0], [-1000.0, -1002.0]])
    expected = torch.tensor(
        [1000 + math.log((1 + math.e) / 2), -1000 + math.log((1 + math.e**-2) / 2)]
    )
    torch.testing.assert_close(utils.log_mean_exp(x, 1), expected)
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    for dim in (0, 1, 2, -1):
        assert_equal(utils.log_mean_exp(x, dim), x.exp().mean(dim).log())


def test_duplicate_repeats_the_whole_batch():
    x = torch.arange(6).view(3, 2)
    assert utils.duplicate(x, 2).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3], [4, 5]]
    assert utils.duplicate(torch.arange(2), 3).tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(utils.duplicate(x, 1), x)
    x = torch.randn(2, 3, 4)
    assert torch.equal(utils.duplicate(x, 3), torch.cat([x, x, x]))


def test_no_function_waits_for_a_gpu():
    """To read a tensor's value would wait."""
    m, v = gaussians(6, 4)
    with NoReading():
        z = utils.sample_gaussian(*utils.gaussian_parameters(torch.cat([m, v], -1)))
        utils.kl_normal(m, v, m, v)
        utils.log_normal(z, m, v)
        utils.log_bernoulli_with_logits(z, m)
        utils.log_mean_exp(m, 0)
        utils.duplicate(m, 2)
