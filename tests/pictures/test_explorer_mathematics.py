"""The numbers and samples of the explorer page, compared with PyTorch in double precision."""

import math
from copy import deepcopy

import pytest
import torch
from browsing import press, seed_random, values
from drawn import random_model, rounded
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.models.vae import VAE
from codebase.pictures import explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]


def other_layers():
    """Make a model with a few small layers and another prior."""
    torch.manual_seed(1)
    model = VAE(z_dim=3)
    model.enc.net = nn.Sequential(
        nn.Linear(784, 7), nn.ELU(0.5), nn.Linear(7, 5), nn.ELU(2.0), nn.Linear(5, 6, bias=False)
    )
    model.dec.net = nn.Sequential(nn.Linear(3, 784))
    with torch.no_grad():
        model.enc.net[0].weight.mul_(5)
        model.dec.net[0].weight.mul_(3)
        model.z_prior_m.fill_(0.5)
        model.z_prior_v.fill_(2.0)
    return rounded(model)


def extreme():
    """Make a model with means of 1000, variances of 1e-8 and 100, and extreme logits."""
    torch.manual_seed(2)
    model = VAE(z_dim=4)
    model.enc.net = nn.Sequential(nn.Linear(784, 8))
    model.dec.net = nn.Sequential(nn.Linear(4, 784))
    with torch.no_grad():
        model.enc.net[0].bias.copy_(torch.tensor([0.0, 1000, -30, 5, -1000, 100, 0, -17]))
        model.dec.net[0].weight.normal_()
        # These logits are almost certain; exp overflows at 1000.
        model.dec.net[0].weight[:4, 3] = torch.tensor([100.0, -100, 1000, -1000])
    return rounded(model)


@pytest.fixture(scope="module", params=[lambda: random_model(10), other_layers, extreme])
def any_model(request):
    return request.param()


@pytest.fixture(scope="module")
def any_path(any_model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("mathematics") / "explorer.html"
    explorer.write(any_model, images, "any", path)
    return path


def test_the_page_computes_what_pytorch_computes(open_page, any_path, any_model, images):
    model = deepcopy(any_model).double()
    z_dim = model.z_dim
    x = torch.cat([images.subset_bits[::12], torch.zeros(4, 784), torch.ones(4, 784)]).double()
    z = torch.randn(len(x), z_dim).double()
    z[-4:] = torch.eye(z_dim)[-1] * torch.tensor([1.0, -1, 30, -30]).view(-1, 1)
    z[-8:-4] = z[-4:]  # The images of zeros get the same z as those of ones.
    script = """return arguments[0].map((x, i) => {
        const z = Float64Array.from(arguments[1][i]), { m, v } = encode(x), logits = decode(z);
        return [m, v, logits, kl({ m, v }, prior), [rec(x, logits)]].map(part => Array.from(part));
    })"""
    results = open_page(any_path).execute_script(script, x.tolist(), z.tolist())
    parts = zip(*results, strict=True)
    m, v, logits, kl, rec = (torch.tensor(part, dtype=torch.float64) for part in parts)
    expected_m, expected_v = model.enc.encode(x)
    near = {"rtol": 1e-7, "atol": 1e-9}  # PyTorch's softplus has an error of 2e-9 at 20.
    torch.testing.assert_close(m, expected_m, **near)
    torch.testing.assert_close(v, expected_v, rtol=1e-7, atol=0)
    torch.testing.assert_close(logits, model.dec.decode(z), **near)
    q, p = (Normal(mean, v.sqrt()) for mean, v in ((m, v), model.z_prior))
    torch.testing.assert_close(kl, kl_divergence(q, p), **near)
    expected_rec = -Bernoulli(logits=logits).log_prob(x).sum(1, keepdim=True)
    torch.testing.assert_close(rec, expected_rec, rtol=1e-9, atol=0)


def test_a_certain_pixel_costs_nothing_or_its_logit(page):
    pixels = [(100, 1), (-100, 0), (1000, 1), (100, 0), (-100, 1), (1000, 0), (-1000, 1)]
    script = "return arguments[0].map(([logit, x]) => [rec([x], [logit]), sigmoid(logit)])"
    costs, means = zip(*page.execute_script(script, pixels), strict=True)
    nothing = math.exp(-100)
    assert costs == pytest.approx([0, 0, 0, 100, 100, 1000, 1000], rel=1e-9, abs=1e-12)
    assert costs[1] == pytest.approx(nothing, rel=1e-9, abs=0)
    assert means == pytest.approx([1, nothing, 1, 1, nothing, 1, 0], rel=1e-9, abs=0)


def assert_gaussian(noise):
    """Check that noise (n, dim) is from N(0, I), by Kolmogorov's test and correlations."""
    pooled = noise.flatten().sort().values
    share = torch.arange(1, len(pooled) + 1) / len(pooled)
    distance = (Normal(0, 1).cdf(pooled) - share).abs().max()
    assert distance < 1.95 / math.sqrt(len(pooled))
    correlations = torch.corrcoef(noise.T) - torch.eye(noise.shape[1])
    assert correlations.abs().max() < 5 / math.sqrt(len(noise))
    assert (noise.diff(dim=0) != 0).all()


def samples_of(page, button, count):
    """Press a button `count` times, and return z (count, dim)."""
    script = """return Array.from({ length: arguments[1] }, () => {
        document.getElementById(arguments[0]).click();
        return Array.from(state.z);
    })"""
    return torch.tensor(page.execute_script(script, button, count))


@pytest.fixture
def small(open_page, images, tmp_path):
    """A fast page with seeded random numbers, and its model."""
    model = other_layers()
    explorer.write(model, images, "small", tmp_path / "explorer.html")
    page = open_page(tmp_path / "explorer.html")
    seed_random(page)
    return page, model


def test_the_buttons_sample_the_posterior_and_the_prior(small, images):
    page, model = small
    m, v = model.enc.encode(images.subset_bits[20])
    assert_gaussian((samples_of(page, "to-sample", 1000) - m) / v.sqrt())
    press(page, "to-mean")
    assert values(page, "state.z").tolist() == pytest.approx(m.tolist(), rel=1e-4)
    prior_m, prior_v = model.z_prior
    assert_gaussian((samples_of(page, "to-prior", 1000) - prior_m) / prior_v.sqrt())
    press(page, "to-origin")
    assert values(page, "state.z").tolist() == [0, 0, 0]


def test_each_chosen_image_gets_new_noise(small, images):
    page, model = small
    z = page.execute_script(
        """return [...document.querySelectorAll("#gallery input")].map(input => {
             input.click();
             return Array.from(state.z);
           })"""
    )
    m, v = model.enc.encode(images.subset_bits)
    assert_gaussian((torch.tensor(z) - m) / v.sqrt())


def test_the_sampled_pixels_have_the_means_of_the_decoder(small):
    page, model = small
    press(page, "samples")
    pictures = page.execute_script(
        """const image = document.getElementById("image");
           const copy = new OffscreenCanvas(28, 28).getContext("2d", { willReadFrequently: true });
           return Array.from({ length: 400 }, () => {
             document.getElementById("to-origin").click();
             copy.clearRect(0, 0, 28, 28);
             copy.drawImage(image, 0, 0);
             return Array.from(copy.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 3));
           })"""
    )
    sampled = torch.tensor(pictures) / 255
    assert sampled.unique().tolist() == [0, 1]
    means = model.compute_sigmoid_given(torch.zeros(3))
    error = (means * (1 - means) / 400).sqrt()
    assert ((sampled.mean(0) - means).abs() < 5 * error).all()
    assert len(sampled.unique(dim=0)) == 400
