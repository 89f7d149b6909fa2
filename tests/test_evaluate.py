"""The bounds on test images, against a loop written from the protocol's words."""

import math

import pytest
import torch
from strict import FUNCTIONS, want_one_shape
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase import evaluate, utils
from codebase.data import Images, subset_rows
from codebase.models.vae import VAE
from codebase.system.errors import UserError

Z_DIM = 3
PRIOR = Independent(Normal(torch.zeros(Z_DIM), torch.ones(Z_DIM)), 1)


class Networks(nn.Module):
    """Networks whose bound depends on the noise, and which keep all that passes through them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.means = torch.randn(784, Z_DIM, generator=generator) / 14
        self.variances = torch.tensor([0.1, 1.0, 2.0])
        self.logits = torch.randn(Z_DIM, 784, generator=generator)
        self.images, self.latents = [], []

    def encode(self, x):
        assert not torch.is_grad_enabled()
        self.images.append(x)
        return self.posterior(x)

    def posterior(self, x):
        return x @ self.means, self.variances.expand(len(x), Z_DIM)

    def decode(self, z):
        self.latents.append(z.flatten(0, -2))
        return z @ self.logits

    def distributions(self, x, z):
        """q(z | x) and p(x | z)."""
        m, v = self.posterior(x)
        logits = z @ self.logits
        return Independent(Normal(m, v.sqrt()), 1), Independent(Bernoulli(logits=logits), 1)

    def seen(self):
        """Images and their latents, one row for each time that an image came."""
        return torch.cat(self.images), torch.cat(self.latents)


def named(x):
    """A whole number for each image, exact in float64, and another one for another image."""
    names = torch.randint(2**40, (784,), generator=torch.Generator().manual_seed(2))
    return x.double() @ names.double()


def watched_model():
    model = VAE(z_dim=Z_DIM)
    model.enc = model.dec = Networks()
    return model, model.enc


def noisy_model():
    """The assignment's networks, with weights for which the latent's noise matters."""
    model = VAE(z_dim=Z_DIM)
    with torch.no_grad():
        model.dec.net[0].weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def images():
    """As many test images of each digit as MNIST has, all different."""
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    labels = torch.arange(10, dtype=torch.uint8).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(3)
    labels = labels[torch.randperm(10_000, generator=generator)]
    pixels = torch.randint(256, (10_000, 784), dtype=torch.uint8, generator=generator)
    return Images("some", pixels[:0], labels[:0], pixels, labels)


def binarized_once(pixels):
    torch.manual_seed(0)
    return torch.bernoulli(pixels.float() / 255)


def test_test_images_are_binarized_by_the_protocol(images):
    state = torch.manual_seed(7).get_state()
    report, everything = evaluate.subset_images(images), evaluate.all_images(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(report, binarized_once(images.test[subset_rows(images.test_labels)]))
    assert torch.equal(everything, binarized_once(images.test))


@pytest.mark.parametrize(
    "n, passes", [(100, 25), (1, 100), (1, 1), (7, 300), (333, 10), (999, 2), (1000, 2), (2500, 2)]
)
def test_bounds_are_the_mean_over_all_images_and_passes(n, passes):
    """Also where several passes are computed at once, or one pass in parts."""
    model, networks = watched_model()
    images = torch.rand(n, 784).round()
    bounds = evaluate.bounds(model, images, passes)
    x, z = networks.seen()
    assert torch.equal(named(x).sort().values, named(images).repeat(passes).sort().values)
    posterior, pixels = networks.distributions(x, z)
    kl, rec = kl_divergence(posterior, PRIOR).mean().item(), -pixels.log_prob(x).mean().item()
    assert bounds.kl == pytest.approx(kl, rel=1e-4)
    assert bounds.rec == pytest.approx(rec, rel=1e-4)
    assert bounds.nelbo == pytest.approx(kl + rec, rel=1e-4)
    assert all(isinstance(value, float) for value in bounds)
    assert max(map(len, networks.images)) <= evaluate.AT_ONCE <= 1000  # so that memory stays small
    assert len(networks.images) <= 2 * n * passes / 1000 + 1  # and not many little parts


def test_every_image_gets_fresh_noise_in_every_pass():
    model, networks = watched_model()
    evaluate.bounds(model, torch.rand(150, 784).round(), 40)
    x, z = networks.seen()
    m, v = networks.posterior(x)
    noise = (z - m) / v.sqrt()
    assert_independent(noise, 150 * 40)


def assert_independent(noise, n):
    """As many rows (n, z) as there should be, standard normal, and none twice."""
    assert noise.shape == (n, Z_DIM)
    # Equal draws would differ by rounding only, others by about 5 / n.
    closest = noise.sort(0).values.diff(dim=0)
    assert (closest < 1e-5).float().mean() < 0.05
    assert noise.mean(0).abs().max() < 5 / math.sqrt(n)
    assert (noise.T @ noise / n - torch.eye(Z_DIM)).abs().max() < 5 * math.sqrt(2 / n)


@pytest.mark.slow
def test_bounds_are_those_of_a_loop_in_the_protocols_words(images):
    model = noisy_model()
    x = binarized_once(images.test[subset_rows(images.test_labels)])
    with torch.no_grad():
        passes = torch.stack([torch.stack(model.negative_elbo_bound(x)) for _ in range(100)])
    mean, error = passes.mean(0).tolist(), (passes.std(0) / 10).tolist()
    assert error[0] > 0.1  # the noise matters
    bounds = evaluate.bounds(model, x, 100)
    assert abs(bounds.nelbo - mean[0]) < 5 * math.sqrt(2) * error[0]
    assert bounds.kl == pytest.approx(mean[1], rel=1e-4)
    assert abs(bounds.rec - mean[2]) < 5 * math.sqrt(2) * error[2]


def test_pixels_that_are_no_probabilities_are_refused(images):
    """MNIST's usual preprocessing gives a splendid bound that means nothing."""
    x = binarized_once(images.test[:10])
    evaluate.bounds(noisy_model(), x / 2, 1)
    for wrong in ((x - 0.1307) / 0.3081, 255 * x, x - 0.001, x + 0.001):
        with pytest.raises(UserError, match=r"^pixels must be from 0 to 1, and these are from "):
            evaluate.bounds(noisy_model(), wrong, 1)


@pytest.mark.slow
def test_a_hundred_passes_on_the_assignments_images_and_one_on_all(images):
    model, networks = watched_model()
    measured = evaluate.measure(model, images)
    assert list(measured) == [evaluate.TEST, evaluate.ALL_TEST] == ["test", "all test"]
    subset = binarized_once(images.test[subset_rows(images.test_labels)])
    everything = binarized_once(images.test)
    names = torch.cat([named(subset).repeat(100), named(everything)])
    assert torch.equal(named(networks.seen()[0]).sort().values, names.sort().values)
    assert list(measured.values()) == [
        evaluate.bounds(model, subset, 100),
        evaluate.bounds(model, everything, 1),
    ]


SPLITS = pytest.mark.parametrize(
    "n, iw", [(30, 1), (30, 100), (7, 300), (100, 15), (2500, 1), (4, 1000), (2, 1001)]
)


@SPLITS
def test_negative_iwae_is_that_of_the_latents_that_were_drawn(n, iw):
    """Each image counts alike, in whatever parts they come."""
    model, networks = watched_model()
    images = torch.rand(n, 784).round()
    value = evaluate.negative_iwae(model, images, iw)
    assert torch.equal(torch.cat(networks.images), images)
    bounds = []
    for x, z in zip(networks.images, networks.latents, strict=True):
        z = z.view(iw, len(x), Z_DIM)
        posterior, pixels = networks.distributions(x, z)
        log_w = pixels.log_prob(x) + PRIOR.log_prob(z) - posterior.log_prob(z)
        bounds.append(math.log(iw) - log_w.logsumexp(0))
    assert isinstance(value, float)
    assert value == pytest.approx(torch.cat(bounds).mean().item(), rel=1e-4)


@SPLITS
def test_a_model_is_asked_for_few_importance_weights_at_once(n, iw, monkeypatch):
    """A solution may repeat its images, of which a thousand samples each would be gigabytes."""
    model, asked = VAE(z_dim=2), []

    def noting(x, iw):
        asked.append((len(x), iw))
        return torch.zeros(3)

    monkeypatch.setattr(model, "negative_iwae_bound", noting)
    evaluate.negative_iwae(model, torch.rand(n, 784).round(), iw)
    rows = [rows for rows, _ in asked]
    assert {samples for _, samples in asked} == {iw}  # those of one image belong together
    assert sum(rows) == n
    assert max(rows) * iw <= evaluate.AT_ONCE or max(rows) == 1
    most = max(1, evaluate.AT_ONCE // iw)
    assert len(rows) == math.ceil(n / most)  # and in not more parts than that needs


@SPLITS
def test_parts_change_a_bound_by_the_noise_only(n, iw, monkeypatch):
    monkeypatch.setattr(utils, "sample_gaussian", lambda m, v: m + v.sqrt() / 2)
    model, x = noisy_model(), torch.rand(n, 784).round()
    with torch.no_grad():
        whole = model.negative_iwae_bound(x, iw)[0].item()
    assert evaluate.negative_iwae(model, x, iw) == pytest.approx(whole, rel=1e-5)


def test_every_sample_of_every_image_gets_fresh_noise():
    """Though the images come in parts."""
    model, networks = watched_model()
    evaluate.negative_iwae(model, torch.rand(60, 784).round(), 100)
    x = torch.cat([part.repeat(100, 1) for part in networks.images])
    m, v = networks.posterior(x)
    assert_independent((torch.cat(networks.latents) - m) / v.sqrt(), 60 * 100)


@pytest.mark.slow
def test_bounds_repeat_and_leave_the_global_random_state():
    model, x = noisy_model(), torch.rand(50, 784).round()
    weights = [parameter.clone() for parameter in model.parameters()]
    before = torch.manual_seed(7).get_state()
    first = evaluate.bounds(model, x, 100), evaluate.negative_iwae(model, x, 10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert (evaluate.bounds(model, x, 100), evaluate.negative_iwae(model, x, 10)) == first
    torch.manual_seed(evaluate.SEED)
    assert model.negative_iwae_bound(x, 10)[0].item() == pytest.approx(first[1], rel=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, weights, model.parameters()))


def test_all_test_images_are_binarized_once(images):
    assert evaluate.all_images(images) is evaluate.all_images(images)


@pytest.mark.parametrize("prior", [(0.0, 1.0), (0.5, 0.3)])
def test_the_kl_of_the_dimensions_sums_to_the_kl(prior):
    model, x = VAE(z_dim=4), torch.rand(50, 784).round()
    with torch.no_grad():
        model.z_prior_m.fill_(prior[0])
        model.z_prior_v.fill_(prior[1])
        m, v = model.enc.encode(x)
    v[:, 2] *= 3  # the dimensions differ
    each = evaluate.kl_of_dimensions(model, m, v)
    p = Normal(torch.tensor(prior[0]), torch.tensor(prior[1]).sqrt())
    torch.testing.assert_close(each, kl_divergence(Normal(m, v.sqrt()), p).mean(0))
    assert each.shape == (4,)
    each = evaluate.kl_of_dimensions(model, *model.enc.encode(x))
    assert each.sum().item() == pytest.approx(evaluate.bounds(model, x, 1).kl, rel=1e-5)
    assert not each.requires_grad


def test_functions_that_want_one_shape_are_enough(monkeypatch):
    """As those of many correct solutions do."""
    model, x = VAE(z_dim=3), torch.rand(50, 784).round()

    def measured():
        with torch.no_grad():
            posterior = model.enc.encode(x)
        kl = evaluate.kl_of_dimensions(model, *posterior).tolist()
        return evaluate.bounds(model, x, 30), evaluate.negative_iwae(model, x, 30), kl

    loose = measured()
    called = want_one_shape(monkeypatch)
    assert measured() == loose
    assert called == {*FUNCTIONS}
