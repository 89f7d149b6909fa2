"""The model: its bounds and samples, against torch.distributions and the exact likelihood.

Most tests use a model of six pixels and a few latents. It has only 64 images, and with one latent
their probabilities are integrals over a line.
"""

import copy
import itertools
import math

import pytest
import torch
from reading import NoReading
from strict import FUNCTIONS, require_equal_shapes
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase.models.vae import VAE

PIXELS = 6
IMAGES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=PIXELS)), dtype=torch.float64)

STATE = {
    "z_prior_m": (1,),
    "z_prior_v": (1,),
    "enc.net.0.weight": (300, 784),
    "enc.net.0.bias": (300,),
    "enc.net.2.weight": (300, 300),
    "enc.net.2.bias": (300,),
    "enc.net.4.weight": (20, 300),
    "enc.net.4.bias": (20,),
    "dec.net.0.weight": (300, 10),
    "dec.net.0.bias": (300,),
    "dec.net.2.weight": (300, 300),
    "dec.net.2.bias": (300,),
    "dec.net.4.weight": (784, 300),
    "dec.net.4.bias": (784,),
}


class SmallEncoder(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(PIXELS, z_dim), nn.Linear(PIXELS, z_dim)

    def encode(self, x):
        return self.mean(x), self.log_variance(x).exp()


class SmallDecoder(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.logits = nn.Linear(z_dim, PIXELS)

    def decode(self, z):
        return self.logits(z)


def small_model(z_dim, prior=(0.0, 1.0)):
    model = VAE(z_dim=z_dim)
    model.enc, model.dec = SmallEncoder(z_dim), SmallDecoder(z_dim)
    with torch.no_grad():
        model.z_prior_m.fill_(prior[0])
        model.z_prior_v.fill_(prior[1])
        model.dec.logits.weight.mul_(3)
    return model.double()


PRIORS = pytest.mark.parametrize("prior", [(0.0, 1.0), (0.5, 0.3)])


def posterior(model, x):
    m, v = model.enc.encode(x)
    return Independent(Normal(m, v.sqrt()), 1)


def prior_of(model):
    m, v = model.z_prior_m.item(), model.z_prior_v.item()
    ones = torch.ones(model.z_dim, dtype=torch.float64)
    return Independent(Normal(m * ones, math.sqrt(v) * ones), 1)


def likelihood(model, z):
    logits = model.dec.decode(z.flatten(0, -2))
    return Independent(Bernoulli(logits=logits.view(*z.shape[:-1], -1)), 1)


def sample_latents(model, x, samples, seed):
    """Latents of x, (samples, batch, z_dim), from the global generator with that seed."""
    torch.manual_seed(seed)
    m, v = model.enc.encode(x)
    return m + v.sqrt() * torch.randn(samples, len(x), model.z_dim, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def integrate(model, function):
    """The expectation of function(z), z (n, 1), under the prior, by the trapezoidal rule."""
    m, s = model.z_prior_m.item(), model.z_prior_v.sqrt().item()
    z = torch.linspace(m - 9 * s, m + 9 * s, 1001, dtype=torch.float64)[:, None]
    weights = prior_of(model).log_prob(z).exp() * 18 * s / 1000
    return torch.tensordot(weights, function(z), 1)


def exact_likelihood(model, x):
    """p(x) for each row of x."""
    return integrate(model, lambda z: likelihood(model, z[:, None]).log_prob(x).exp())


def test_the_state_dict_has_the_assignments_names_and_shapes():
    state = VAE(z_dim=10).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == STATE
    foreign = {name: torch.randn(shape) for name, shape in STATE.items()}
    assert VAE(z_dim=10).load_state_dict(foreign, strict=True)


def test_the_prior_is_standard_normal_and_does_not_train():
    model = VAE()
    assert model.z_prior_m.tolist() == [0]
    assert model.z_prior_v.tolist() == [1]
    assert model.z_prior[0] is model.z_prior_m
    assert model.z_prior[1] is model.z_prior_v
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["z_prior_m", "z_prior_v"]


def test_the_default_model_is_the_assignments():
    model = VAE()
    assert (model.name, model.z_dim) == ("vae", 2)
    assert model.sample_z(3).shape == model.enc.encode(torch.rand(3, 784))[0].shape == (3, 2)
    model = VAE(nn="v1", name="mine", z_dim=5)
    assert (model.name, model.z_dim) == ("mine", 5)
    assert model.sample_z(3).shape == model.enc.encode(torch.rand(3, 784))[1].shape == (3, 5)


@PRIORS
def test_the_elbo_is_kl_plus_reconstruction(prior):
    model, x = small_model(3, prior), IMAGES[10:50]
    torch.manual_seed(1)
    nelbo, kl, rec = model.negative_elbo_bound(x)
    z = sample_latents(model, x, 1, seed=1)[0]
    close(kl, kl_divergence(posterior(model, x), prior_of(model)).mean())
    close(rec, -likelihood(model, z).log_prob(x).mean())
    close(nelbo, kl + rec)
    assert nelbo.shape == kl.shape == rec.shape == ()


def test_the_elbo_is_in_nats_per_image():
    """The logits of a new model are near 0, so each of 784 pixels costs log 2."""
    model, x = VAE(z_dim=4).double(), torch.rand(50, 784).double().round()
    nelbo, kl, rec = model.negative_elbo_bound(x)
    assert rec.item() == pytest.approx(784 * math.log(2), rel=0.01)
    close(kl, kl_divergence(posterior(model, x), prior_of(model)).mean())
    close(nelbo, kl + rec)


@PRIORS
def test_the_loss_is_the_elbo_with_its_parts_and_its_gradient(prior):
    model, x = small_model(3, prior), IMAGES[10:50]
    z = sample_latents(model, x, 1, seed=1)[0]
    kl = kl_divergence(posterior(model, x), prior_of(model)).mean()
    rec = -likelihood(model, z).log_prob(x).mean()
    trained = [*model.enc.parameters(), *model.dec.parameters()]
    gradients = torch.autograd.grad(kl + rec, trained)
    torch.manual_seed(1)
    with NoReading():
        loss, summaries = model.loss(x)
        loss.backward()
    assert list(summaries) == ["train/loss", "gen/elbo", "gen/kl_z", "gen/rec"]
    assert summaries["train/loss"] == loss
    close(loss, kl + rec)
    close(summaries["gen/elbo"], -(kl + rec))
    close(summaries["gen/kl_z"], kl)
    close(summaries["gen/rec"], rec)
    for parameter, gradient in zip(trained, gradients, strict=True):
        close(parameter.grad, gradient)
    assert model.z_prior_m.grad is None
    assert model.z_prior_v.grad is None


@pytest.mark.parametrize("batch, samples", [(1, 1), (5, 1), (1, 8), (5, 8), (64, 100)])
@PRIORS
def test_the_iwae_bound_is_the_log_mean_of_the_importance_weights(batch, samples, prior):
    model, x = small_model(3, prior), IMAGES[:batch]
    z = sample_latents(model, x, samples, seed=1)
    log_px = likelihood(model, z).log_prob(x)
    log_w = log_px + prior_of(model).log_prob(z) - posterior(model, x).log_prob(z)
    expected = math.log(samples) - log_w.logsumexp(0).mean()
    trained = [*model.enc.parameters(), *model.dec.parameters()]
    gradients = torch.autograd.grad(expected, trained)
    torch.manual_seed(1)
    with NoReading():
        niwae, kl, rec = model.negative_iwae_bound(x, samples)
    close(niwae, expected)
    close(kl, kl_divergence(posterior(model, x), prior_of(model)).mean())
    close(rec, -log_px.mean())
    assert niwae.shape == kl.shape == rec.shape == ()
    for ours, theirs in zip(torch.autograd.grad(niwae, trained), gradients, strict=True):
        close(ours, theirs)


def test_the_iwae_bound_of_a_new_model_is_the_public_graders():
    """The grader of XCS236 accepts either of two values."""
    torch.manual_seed(0)
    x = torch.randint(0, 2, (97, 784)).float()
    model = VAE(z_dim=10)
    torch.manual_seed(0)
    niwae = model.negative_iwae_bound(x, iw=10)[0].item()
    assert min(abs(niwae - 544.3607), abs(niwae - 544.0493)) < 0.15


@PRIORS
def test_the_bounds_tighten_to_the_exact_likelihood(prior):
    model = small_model(1, prior).requires_grad_(False)
    with torch.no_grad():
        model.enc.log_variance.bias.add_(1)  # far from the posterior, so the bounds are loose
    assert exact_likelihood(model, IMAGES).sum().item() == pytest.approx(1, rel=1e-9)
    exact = -exact_likelihood(model, IMAGES).log().mean().item()
    often = IMAGES.repeat(300, 1)  # the noise is smaller than the bounds' differences
    elbo = model.negative_elbo_bound(often)[0].item()
    loose, tighter, tight = (model.negative_iwae_bound(often, iw)[0].item() for iw in (1, 5, 25))
    assert loose == pytest.approx(elbo, rel=0.03)
    assert elbo > tighter + 2
    assert tighter > tight + 0.2
    assert tight > exact + 0.02
    assert model.negative_iwae_bound(IMAGES, 2000)[0].item() == pytest.approx(exact, abs=0.01)


def test_functions_are_called_with_equal_shapes(monkeypatch):
    """Correct functions of a student may need that."""
    called = require_equal_shapes(monkeypatch)
    model, x = VAE(z_dim=3), torch.rand(5, 784).round()
    model.loss(x)
    assert called == {*FUNCTIONS} - {"log_normal"}
    model.negative_iwae_bound(x, 4)
    assert called == {*FUNCTIONS}
    called.clear()
    model.sample_z(7)
    assert called == {"sample_gaussian"}


@PRIORS
def test_latents_are_sampled_from_the_prior(prior):
    z = small_model(3, prior).sample_z(20_000)
    assert z.shape == (20_000, 3)
    noise = (z - prior[0]) / math.sqrt(prior[1])
    error = 1 / math.sqrt(len(noise))
    assert noise.mean(0).abs().max() < 5 * error
    # All dimensions have variance 1 and are independent, and so are the images.
    assert (noise.T @ noise / len(noise) - torch.eye(3)).abs().max() < 5 * math.sqrt(2) * error
    assert len(z.unique()) == z.numel()


def frequencies(images):
    """The number of times that each of the 64 images is among the images (n, 6)."""
    assert images.unique().tolist() == [0, 1]
    index = images @ (2.0 ** torch.arange(PIXELS - 1, -1, -1)).double()
    return index.long().bincount(minlength=len(IMAGES))


def assert_counts(counts, probabilities):
    expected = counts.sum() * probabilities
    assert (counts - expected).abs().max() < 5 * expected.max().sqrt()
    # Chi-squared, with mean 63 and variance 126.
    assert abs(((counts - expected).square() / expected).sum() - 63) < 5 * math.sqrt(126)


@PRIORS
def test_images_are_sampled_with_their_exact_probability(prior):
    model = small_model(1, prior).requires_grad_(False)
    assert_counts(frequencies(model.sample_x(40_000)), exact_likelihood(model, IMAGES))


def test_images_of_given_latents_are_sampled_from_the_likelihood():
    model = small_model(1).requires_grad_(False)
    for z in torch.tensor([[0.7], [-1.5]]).double():
        probabilities = likelihood(model, z[None]).log_prob(IMAGES).exp()
        assert_counts(frequencies(model.sample_x_given(z.expand(40_000, 1))), probabilities)


@PRIORS
def test_pixel_probabilities_are_those_of_the_decoder(prior):
    model = small_model(1, prior).requires_grad_(False)
    z = torch.linspace(-3, 3, 9).double()[:, None]
    logits = z * model.dec.logits.weight[:, 0] + model.dec.logits.bias
    close(model.compute_sigmoid_given(z), 1 / (1 + (-logits).exp()))
    p = model.sample_sigmoid(40_000)
    for power in (1, 2):
        mean = integrate(model, lambda z: model.compute_sigmoid_given(z) ** power)  # noqa: B023
        error = (p**power).std(0) / math.sqrt(len(p))
        assert ((p**power).mean(0) - mean).abs().max() < 5 * error.max()
    assert len(p[:, 0].unique()) == len(p)


def test_samples_have_the_assignments_shapes():
    model = VAE(z_dim=3)
    for images in (
        model.sample_x(7),
        model.sample_sigmoid(7),
        model.sample_x_given(torch.rand(7, 3)),
    ):
        assert images.shape == (7, 784)
    assert model.sample_x(7).unique().tolist() == [0, 1]


def test_a_copy_and_a_conversion_keep_the_prior():
    model, x = VAE(z_dim=3), torch.rand(5, 784).round()
    twin = copy.deepcopy(model).to(torch.float64)
    assert twin.z_prior[0] is twin.z_prior_m
    assert twin.z_prior_m.dtype == torch.float64
    assert twin.negative_elbo_bound(x.double())[0].dtype == torch.float64
    assert twin.sample_x(2).dtype == torch.float64
    assert model.z_prior_m.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_bounds_do_not_wait_for_the_gpu():
    model, x = VAE(z_dim=3).cuda(), torch.rand(5, 784).round().cuda()
    model.loss(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.loss(x)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
