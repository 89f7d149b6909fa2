"""The model: its bounds and samples, against torch.distributions and the exact likelihood.

Most tests use a model of six pixels and a few latents. It has only 64 images, and with one latent
their probabilities are integrals over a line.
"""

import copy
import math
from itertools import product

import pytest
import torch
from reading import NoReading
from strict import FUNCTIONS, require_equal_shapes
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase.models.vae import VAE

PIXELS = 6
IMAGES = torch.tensor(list(product([0.0, 1.0], repeat=PIXELS)), dtype=torch.float64)
PRIORS = pytest.mark.parametrize("prior", [(0.0, 1.0), (0.5, 0.3)])


class Small(nn.Module):
    """A linear encoder and a linear decoder in one."""

    def __init__(self, z_dim):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(PIXELS, z_dim), nn.Linear(PIXELS, z_dim)
        self.logits = nn.Linear(z_dim, PIXELS)

    def encode(self, x):
        return self.mean(x), self.log_variance(x).exp()

    def decode(self, z):
        return self.logits(z)


def small_model(z_dim, prior=(0.0, 1.0)):
    model = VAE(z_dim=z_dim)
    model.enc = model.dec = Small(z_dim)
    with torch.no_grad():
        model.z_prior_m.fill_(prior[0])
        model.z_prior_v.fill_(prior[1])
        model.dec.logits.weight.mul_(3)
    return model.double()


def normal(m, v):
    return Independent(Normal(m, v.sqrt()), 1)


def prior_of(model):
    return normal(model.z_prior_m.expand(model.z_dim), model.z_prior_v.expand(model.z_dim))


def likelihood(model, z):
    return Independent(Bernoulli(logits=model.dec.decode(z)), 1)


def expected_parts(model, x, samples):
    """KL, log p(x | z) and log w, (samples, batch), with the noise of the global generator."""
    torch.manual_seed(1)
    m, v = model.enc.encode(x)
    z = m + v.sqrt() * torch.randn(samples, len(x), model.z_dim, dtype=torch.float64)
    log_px = likelihood(model, z).log_prob(x)
    log_w = log_px + prior_of(model).log_prob(z) - normal(m, v).log_prob(z)
    return kl_divergence(normal(m, v), prior_of(model)).mean(), log_px, log_w


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def close_gradients(model, *values):
    close(*(torch.autograd.grad(value, [*model.enc.parameters()]) for value in values))


def exact_likelihood(model, x):
    """p(x) for each row of x: the expectation of p(x | z), by the trapezoidal rule."""
    m, s = model.z_prior_m.item(), model.z_prior_v.sqrt().item()
    z = torch.linspace(m - 9 * s, m + 9 * s, 1001, dtype=torch.float64)[:, None]
    weights = prior_of(model).log_prob(z).exp() * 18 * s / 1000
    return weights @ likelihood(model, z[:, None]).log_prob(x).exp()


def test_the_default_model_is_the_assignments():
    model = VAE()
    assert (model.name, model.z_dim) == ("vae", 2)
    assert model.z_prior_m.tolist() == [0] and model.z_prior_v.tolist() == [1]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["z_prior_m", "z_prior_v"]
    assert len(model.state_dict()) == 2 + 2 * 6  # test_nns.py has the layers
    assert VAE(name="mine").name == "mine"


def test_a_copy_and_a_conversion_keep_the_prior():
    twin = copy.deepcopy(VAE(z_dim=3)).to(torch.float64)
    assert twin.z_prior[0] is twin.z_prior_m and twin.z_prior[1] is twin.z_prior_v
    assert twin.z_prior_m.dtype == twin.sample_x(2).dtype == torch.float64


# Bounds


@PRIORS
def test_the_elbo_and_the_loss_are_kl_plus_reconstruction(prior):
    model, x = small_model(3, prior), IMAGES[10:50]
    kl, log_px, _ = expected_parts(model, x, 1)
    rec = -log_px.mean()
    torch.manual_seed(1)
    with NoReading():
        bound = model.negative_elbo_bound(x)
    close(bound, (kl + rec, kl, rec))  # of the same shape, too
    torch.manual_seed(1)
    with NoReading():
        loss, summaries = model.loss(x)
    close(loss, kl + rec)
    names = ("train/loss", "gen/elbo", "gen/kl_z", "gen/rec")
    close(summaries, dict(zip(names, (loss, -(kl + rec), kl, rec), strict=True)))
    close_gradients(model, loss, kl + rec)


@pytest.mark.parametrize("batch, samples", [(5, 1), (1, 8), (64, 100)])
@PRIORS
def test_the_iwae_bound_is_the_log_mean_of_the_importance_weights(batch, samples, prior):
    model, x = small_model(3, prior), IMAGES[:batch]
    kl, log_px, log_w = expected_parts(model, x, samples)
    niwae = math.log(samples) - log_w.logsumexp(0).mean()
    torch.manual_seed(1)
    with NoReading():
        bound = model.negative_iwae_bound(x, samples)
    close(bound, (niwae, kl, -log_px.mean()))
    close_gradients(model, bound[0], niwae)


@PRIORS
def test_the_iwae_bound_tightens_to_the_exact_likelihood(prior):
    model = small_model(1, prior).requires_grad_(False)
    exact = -exact_likelihood(model, IMAGES).log().mean().item()
    assert model.negative_elbo_bound(IMAGES.repeat(300, 1))[0].item() > exact + 0.1
    assert model.negative_iwae_bound(IMAGES, 2000)[0].item() == pytest.approx(exact, abs=0.01)


def test_functions_are_called_with_equal_shapes(monkeypatch):
    """Correct functions of a student may need that."""
    called = require_equal_shapes(monkeypatch)
    model, x = VAE(z_dim=3), torch.rand(5, 784).round()
    model.loss(x)
    model.sample_z(7)
    assert called == {*FUNCTIONS} - {"log_normal"}
    model.negative_iwae_bound(x, 4)
    assert called == {*FUNCTIONS}


# Samples


def assert_sampled(images, probabilities):
    """Check the frequencies of the 64 images among images (n, 6)."""
    index = (images @ (2.0 ** torch.arange(PIXELS - 1, -1, -1)).double()).long()
    assert torch.equal(IMAGES[index], images)
    counts, expected = index.bincount(minlength=64), len(images) * probabilities
    often = expected > 5
    errors = ((counts - expected).square() / expected)[often]
    # Chi-squared, whose variance is twice its mean.
    assert errors.sum() < len(errors) + 5 * math.sqrt(2 * len(errors))


@PRIORS
def test_images_are_sampled_with_their_exact_probability(prior):
    model = small_model(1, prior).requires_grad_(False)
    assert_sampled(model.sample_x(40_000), exact_likelihood(model, IMAGES))
    for z in torch.tensor([[0.7], [-1.5]]).double():
        probabilities = likelihood(model, z).log_prob(IMAGES).exp()
        assert_sampled(model.sample_x_given(z.expand(40_000, 1)), probabilities)


@PRIORS
def test_pixel_probabilities_are_those_of_the_decoder_at_sampled_latents(prior):
    model = small_model(1, prior).requires_grad_(False)
    torch.manual_seed(1)
    z = model.sample_z(9)
    logits = z * model.dec.logits.weight[:, 0] + model.dec.logits.bias
    close(model.compute_sigmoid_given(z), 1 / (1 + (-logits).exp()))
    torch.manual_seed(1)
    close(model.sample_sigmoid(9), model.compute_sigmoid_given(z))
    assert len(small_model(3, prior).sample_z(9).unique()) == 9 * 3
