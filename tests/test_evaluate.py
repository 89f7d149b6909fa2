"""The bounds on test images, against torch.distributions and a loop that follows the protocol."""

import copy
import math

import pytest
import torch
from strict import FUNCTIONS, require_equal_shapes
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase import evaluate
from codebase.data import Images
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples

Z_DIM = 3


def normal(m, v):
    return Independent(Normal(m, v.sqrt()), 1)


PRIOR = normal(torch.zeros(Z_DIM), torch.ones(Z_DIM))


class Networks(nn.Module):
    """Networks that record their images and latents, and whose bound depends on the noise."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.means = torch.randn(784, Z_DIM, generator=generator) / 14
        self.variances = torch.tensor([0.1, 1.0, 2.0])
        self.logits = torch.randn(Z_DIM, 784, generator=generator)
        self.images, self.latents = [], []  # batch by batch

    def encode(self, x):
        assert not torch.is_grad_enabled()
        self.images.append(x)
        return self.posterior(x)

    def posterior(self, x):
        return x @ self.means, self.variances.expand(len(x), Z_DIM)

    def decode(self, z):
        self.latents.append(z.flatten(0, -2))
        return z @ self.logits

    def log_probabilities(self, x, z):
        """log q(z | x) and log p(x | z)."""
        pixels = Independent(Bernoulli(logits=z @ self.logits), 1)
        return normal(*self.posterior(x)).log_prob(z), pixels.log_prob(x)

    def recorded(self):
        """The images, one row for each pass of an image, and their KL and REC."""
        x, z = torch.cat(self.images), torch.cat(self.latents)
        kl = kl_divergence(normal(*self.posterior(x)), PRIOR)
        return x, kl, -self.log_probabilities(x, z)[1]


def hashes(x):
    """A whole number for each image, exact in float64, and different for different images."""
    weights = torch.randint(2**40, (784,), generator=torch.Generator().manual_seed(2))
    return x.double() @ weights.double()


def recording_model():
    model = VAE(z_dim=Z_DIM)
    model.enc = model.dec = Networks()
    return model, model.enc


@pytest.mark.parametrize("n, passes", [(100, 25), (1, 1), (7, 300), (333, 10), (2500, 2)])
def test_bounds_are_the_mean_over_all_images_and_passes(n, passes):
    """Several passes may be computed at once, or one pass in parts."""
    model, networks = recording_model()
    images = torch.rand(n, 784).round()
    bounds = evaluate.bounds(model, images, passes)
    x, kl, rec = networks.recorded()
    assert torch.equal(hashes(x).sort().values, hashes(images).repeat(passes).sort().values)
    kl, rec = kl.mean().item(), rec.mean().item()
    assert bounds[:3] == pytest.approx((kl + rec, kl, rec), rel=1e-4)
    assert max(map(len, networks.images)) <= 1000  # memory stays small
    assert len(networks.images) <= passes * math.ceil(n / 100)  # the groups are not too small


def test_the_standard_error_is_that_of_single_images():
    model, networks = recording_model()
    images = torch.rand(2500, 784).round()
    images[1250:] *= torch.rand(1250, 784).round()  # the halves differ, as those of MNIST do
    bounds = evaluate.bounds(model, images)
    _, kl, rec = networks.recorded()
    assert (bounds.kl, bounds.rec) == pytest.approx((kl.mean().item(), rec.mean().item()), rel=1e-5)
    assert bounds.error == pytest.approx((kl + rec).std().item() / 50, rel=0.5)
    assert math.isnan(evaluate.bounds(model, images[:1]).error)


@pytest.mark.slow
def test_the_subset_has_100_passes_and_the_other_images_have_one():
    pixels = torch.randint(256, (1000, 784), dtype=torch.uint8)
    images = Images("some", pixels, pixels, torch.arange(10, dtype=torch.uint8).repeat(100))
    model, networks = recording_model()
    measured = evaluate.measure(model, images)
    subset, everything = images.subset_bits, images.test_bits
    assert len(networks.recorded()[0]) == 100 * 100 + 1000
    assert measured.subset[:3] == evaluate.bounds(model, subset, 100)[:3]
    assert measured.all == evaluate.bounds(model, everything)
    assert measured.valid is None
    held_out = images.hold_out(400)
    assert evaluate.measure(model, held_out).valid == evaluate.bounds(model, held_out.valid_bits)
    assert len(held_out.valid) == 400
    assert torch.equal(torch.cat([held_out.train, held_out.valid]), images.train)


@pytest.mark.parametrize("measure", [evaluate.bounds, evaluate.negative_iwae])
def test_every_image_gets_fresh_noise_for_every_pass_and_sample(measure):
    model, networks = recording_model()
    measure(model, torch.rand(60, 784).round(), 100)
    pairs = zip(networks.images, networks.latents, strict=True)
    x = torch.cat([images.repeat(len(latents) // len(images), 1) for images, latents in pairs])
    m, v = networks.posterior(x)
    noise = (torch.cat(networks.latents) - m) / v.sqrt()
    assert noise.shape == (60 * 100, Z_DIM)
    # Equal samples would differ by rounding only, others differ by about 5 / n.
    closest = noise.sort(0).values.diff(dim=0)
    assert (closest < 1e-5).float().mean() < 0.05


@pytest.mark.parametrize("n, iw", [(30, 100), (7, 300), (100, 15), (2500, 1), (2, 2001)])
def test_negative_iwae_is_that_of_the_sampled_latents(n, iw):
    """All images have the same weight, however they and their latents are split."""
    model, networks = recording_model()
    images = torch.rand(n, 784).round()
    value, error = evaluate.iwae_and_error(model, images, iw)
    log_weights: dict[int, list] = {}
    for x, z in zip(networks.images, networks.latents, strict=True):
        z = z.view(-1, len(x), Z_DIM)
        posterior, pixels = networks.log_probabilities(x, z)
        log_w = pixels + PRIOR.log_prob(z) - posterior
        for image, weights in zip(hashes(x).tolist(), log_w.T, strict=True):
            log_weights.setdefault(image, []).append(weights)
    weights = torch.stack([torch.cat(parts) for parts in log_weights.values()])
    assert weights.shape == (n, iw)
    bounds = math.log(iw) - weights.logsumexp(1)
    assert value == pytest.approx(bounds.mean().item(), rel=1e-4)
    if iw > 1000:  # Then images are measured one by one.
        assert error == pytest.approx(bounds.std().item() / math.sqrt(n), rel=1e-3)
    # A solution may repeat its images, and 5,000 samples of one do not fit into a cache.
    assert max(map(len, networks.latents)) <= 1000


def test_bounds_repeat_and_leave_the_global_random_state():
    model, x = VAE(z_dim=Z_DIM), torch.rand(50, 784).round()
    before = torch.manual_seed(7).get_state()
    first = evaluate.bounds(model, x, 10), evaluate.negative_iwae(model, x, 10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert (evaluate.bounds(model, x, 10), evaluate.negative_iwae(model, x, 10)) == first
    torch.manual_seed(evaluate.SEED)
    assert model.negative_iwae_bound(x, 10)[0].item() == pytest.approx(first[1], rel=1e-6)


@pytest.mark.slow
def test_a_measurement_is_in_evaluation_mode_and_changes_neither_modes_nor_statistics(tmp_path):
    """The model is in training mode, apart from one frozen layer, and has batch statistics."""
    model, x = VAE(z_dim=3), torch.rand(30, 784).round()
    for network in (model.enc.net, model.dec.net):
        network.append(nn.BatchNorm1d(network[-1].out_features)).append(nn.Dropout(0.5))
    for _ in range(50):
        model.loss(torch.rand(20, 784).round())
    model.dec.net[-1].eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    for measure in (
        lambda model: (evaluate.bounds(model, x, 3), evaluate.negative_iwae(model, x, 7)),
        lambda model: (
            evaluate.kl_of_dimensions(model, x).tolist(),
            evaluate.active_units(model, x),
        ),
        # A single sample has no batch statistics.
        lambda model: visualize_samples(model, 1, (1, 1), save_path=tmp_path / "one.png"),
    ):
        assert measure(model) == measure(copy.deepcopy(model).eval())
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    with pytest.raises(ZeroDivisionError), evaluate.evaluation_mode(model):
        _ = 1 / 0
    assert [module.training for module in model.modules()] == modes


def test_the_kl_of_the_dimensions_is_that_of_torch_distributions():
    (model, networks), x = recording_model(), torch.rand(50, 784).round()
    with torch.no_grad():
        model.z_prior_m.fill_(0.5)
        model.z_prior_v.fill_(0.3)
    m, v = networks.posterior(x)
    expected = kl_divergence(Normal(m, v.sqrt()), Normal(0.5, math.sqrt(0.3))).mean(0)
    torch.testing.assert_close(evaluate.kl_of_dimensions(model, x), expected)


def test_a_unit_is_active_if_its_mean_varies_over_the_images():
    model, networks = recording_model()
    with torch.no_grad():
        networks.means *= torch.tensor([0.0, 0.08, 0.12])
    x = torch.rand(500, 784).round()
    spread = (x @ networks.means).var(0)
    assert 0.005 < spread[1] < 0.01 < spread[2] < 0.02
    assert evaluate.active_units(model, x) == 1


def test_the_functions_of_a_solution_are_called_with_equal_shapes(monkeypatch):
    called = require_equal_shapes(monkeypatch)
    model, x = VAE(z_dim=3), torch.rand(50, 784).round()
    for measure in (evaluate.bounds, evaluate.negative_iwae):
        measure(model, x, 30)
    evaluate.kl_of_dimensions(model, x)
    assert called == {*FUNCTIONS}
