"""The probability against torch.distributions, Monte Carlo and numerical gradients."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase import utils


def normal(m, v):
    return Independent(Normal(m, v.sqrt()), 1)


def gaussians(*shape, dtype=torch.float64):
    """A mean and a variance of that shape."""
    return torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype) * 3 + 0.1


LEADING = [(), (7,), (2, 3, 4)]


@pytest.mark.parametrize("leading", LEADING)
def test_kl_normal_is_that_of_torch_distributions(leading):
    qm, qv = gaussians(*leading, 5)
    pm, pv = gaussians(*leading, 5)
    expected = kl_divergence(normal(qm, qv), normal(pm, pv))
    torch.testing.assert_close(utils.kl_normal(qm, qv, pm, pv), expected, rtol=1e-12, atol=1e-12)


def test_kl_normal_is_the_mean_log_ratio_of_samples():
    (qm, qv), (pm, pv) = gaussians(3), gaussians(3)
    z = normal(qm, qv).sample((400_000,))
    ratio = utils.log_normal(z, qm, qv) - utils.log_normal(z, pm, pv)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - utils.kl_normal(qm, qv, pm, pv)) < 5 * error


def test_kl_normal_broadcasts_a_prior_of_one_number():
    qm, qv = gaussians(6, 10)
    pm, pv = torch.tensor([0.3]).double(), torch.tensor([1.7]).double()
    expected = kl_divergence(normal(qm, qv), normal(pm.expand(10), pv.expand(10)))
    torch.testing.assert_close(utils.kl_normal(qm, qv, pm, pv), expected)


@pytest.mark.parametrize("leading", LEADING)
def test_log_normal_is_that_of_torch_distributions(leading):
    m, v = gaussians(*leading, 5)
    x = torch.randn(*leading, 5, dtype=torch.float64)
    expected = normal(m, v).log_prob(x)
    torch.testing.assert_close(utils.log_normal(x, m, v), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("leading", LEADING)
def test_log_bernoulli_is_that_of_torch_distributions(leading):
    logits = 30 * torch.randn(*leading, 9, dtype=torch.float64)
    x = torch.rand(*leading, 9, dtype=torch.float64).round()
    expected = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    actual = utils.log_bernoulli_with_logits(x, logits)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_log_bernoulli_broadcasts_images_over_samples():
    x, logits = torch.rand(4, 9).round(), torch.randn(3, 4, 9)
    expected = torch.stack([utils.log_bernoulli_with_logits(x, sample) for sample in logits])
    torch.testing.assert_close(utils.log_bernoulli_with_logits(x, logits), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_arguments_give_finite_values_and_gradients(dtype):
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
    (gradients := torch.autograd.grad(values.sum(), (logits, tiny, m)))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradients_are_the_numerical_ones():
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


def test_samples_have_the_mean_and_variance_asked_for():
    m, v = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.25, 1.0, 4.0])
    z = utils.sample_gaussian(m.expand(200_000, 3), v)
    torch.testing.assert_close(z.mean(0), m, rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0), v, rtol=0.02, atol=0)


def test_samples_of_one_mean_differ():
    z = utils.sample_gaussian(torch.zeros(1).expand(50, 3), torch.ones(1))
    assert len(z.unique()) == 150


def test_gaussian_parameters_are_the_halves():
    h = torch.randn(3, 8, 2)
    m, v = utils.gaussian_parameters(h, dim=1)
    torch.testing.assert_close(m, h[:, :4])
    torch.testing.assert_close(v, (1 + h[:, 4:].exp()).log() + 1e-8)
    assert (utils.gaussian_parameters(torch.full((2,), -1e4))[1] > 0).all()
    with pytest.raises(ValueError, match="odd size 5"):
        utils.gaussian_parameters(torch.zeros(2, 5))


def test_log_mean_exp_is_stable_and_right():
    x = torch.tensor([[1000.0, 1001.0], [-1000.0, -1002.0]])
    expected = torch.tensor(
        [1000 + math.log((1 + math.e) / 2), -1000 + math.log((1 + math.e**-2) / 2)]
    )
    torch.testing.assert_close(utils.log_mean_exp(x, 1), expected)
    x = torch.randn(4, 5, 6)
    torch.testing.assert_close(utils.log_mean_exp(x, 0), x.exp().mean(0).log())


def test_duplicate_repeats_the_whole_batch():
    x = torch.arange(6).view(3, 2)
    assert utils.duplicate(x, 2).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3], [4, 5]]
    assert utils.duplicate(torch.arange(2), 3).tolist() == [0, 1, 0, 1, 0, 1]


def test_functions_work_under_vmap():
    m, v = gaussians(6, 4, dtype=torch.float32)
    x = torch.rand(6, 4).round()
    zero, one = torch.zeros(1), torch.ones(1)
    for function, arguments in [
        (lambda m, v: utils.kl_normal(m, v, zero, one), (m, v)),
        (utils.log_normal, (x, m, v)),
        (utils.log_bernoulli_with_logits, (x, m)),
        (lambda x: utils.log_mean_exp(x, 0), (m,)),
        (lambda h: utils.gaussian_parameters(h)[1], (m,)),
        (lambda x: utils.duplicate(x, 2), (m,)),
    ]:
        expected = torch.stack([function(*row) for row in zip(*arguments, strict=True)])
        torch.testing.assert_close(torch.func.vmap(function)(*arguments), expected)
    z = torch.func.vmap(utils.sample_gaussian, randomness="different")(m, v)
    assert len(((z - m) / v.sqrt()).unique()) == m.numel()


def test_functions_compile_into_one_graph():
    m, v = gaussians(6, 4, dtype=torch.float32)
    x = torch.rand(6, 4).round()

    def everything(x, m, v):
        z = utils.sample_gaussian(*utils.gaussian_parameters(torch.cat([m, v], -1)))
        kl = utils.kl_normal(m, v, torch.zeros(1), torch.ones(1))
        log_p = utils.log_bernoulli_with_logits(utils.duplicate(x, 2), utils.duplicate(m, 2))
        return z, kl, utils.log_normal(x, m, v), log_p, utils.log_mean_exp(m, 0)

    compiled = torch.compile(everything, backend="aot_eager", fullgraph=True)
    expected = everything(x, m, v)
    for actual, value in list(zip(compiled(x, m, v), expected, strict=True))[1:]:
        torch.testing.assert_close(actual, value)
