"""The model: its parts, its bounds, and that it goes wherever a module goes."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from codebase.models import nns
from codebase.models.vae import VAE

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


@pytest.fixture
def x():
    return torch.rand(5, 784).round()


@pytest.fixture
def one_latent():
    """A model of one latent whose posteriors and images vary, with log p(x) known by quadrature."""
    model = VAE(z_dim=1)
    with torch.no_grad():
        model.dec.net[0].weight.mul_(3)
        model.enc.net[4].bias.copy_(torch.tensor([0.7, 0.2]))
    return model.double().requires_grad_(False)


def exact_log_likelihood(model, x):
    """log p(x) of a model with one latent, by the trapezoidal rule over z."""
    z = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    joint = Normal(0.0, 1.0).log_prob(z)[:, None]
    logits = model.dec.decode(z[:, None])[:, None]
    joint = joint + Bernoulli(logits=logits).log_prob(x).sum(-1)
    return joint.logsumexp(0) + math.log(18 / 1000)


def test_state_is_that_of_the_assignment():
    state = VAE(z_dim=10).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == STATE
    foreign = {name: torch.randn(shape) for name, shape in STATE.items()}
    assert VAE(z_dim=10).load_state_dict(foreign, strict=True)


def test_only_the_networks_train():
    frozen = [name for name, p in VAE().named_parameters() if not p.requires_grad]
    assert frozen == ["z_prior_m", "z_prior_v"]


def test_networks_are_found_by_name():
    assert VAE(nn="v1", name="mine", z_dim=3).name == "mine"
    with pytest.raises(ValueError, match=r"'v9'; known: v1"):
        VAE(nn="v9")
    with pytest.raises(ValueError, match="known: v1"):
        getattr(nns, "v2")  # noqa: B009


def test_bound_is_kl_plus_reconstruction(x):
    model = VAE(z_dim=4)
    torch.manual_seed(1)
    nelbo, kl, rec = model.negative_elbo_bound(x)
    m, v = model.enc.encode(x)
    torch.manual_seed(1)
    z = m + v.sqrt() * torch.randn(5, 4)
    prior = Independent(Normal(torch.zeros(5, 4), torch.ones(5, 4)), 1)
    expected_kl = kl_divergence(Independent(Normal(m, v.sqrt()), 1), prior).mean()
    pixels = Independent(Bernoulli(logits=model.dec.decode(z)), 1)
    torch.testing.assert_close(kl, expected_kl)
    torch.testing.assert_close(rec, -pixels.log_prob(x).mean())
    torch.testing.assert_close(nelbo, kl + rec)
    assert nelbo.shape == kl.shape == rec.shape == ()


def test_loss_is_the_bound_and_its_parts(x):
    model = VAE()
    loss, summaries = model.loss(x)
    assert list(summaries) == ["train/loss", "gen/elbo", "gen/kl_z", "gen/rec"]
    assert summaries["train/loss"] == loss == -summaries["gen/elbo"]
    torch.testing.assert_close(loss, summaries["gen/kl_z"] + summaries["gen/rec"])
    loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_iwae_with_one_sample_is_the_elbo_in_expectation(one_latent):
    x = torch.rand(1, 784, dtype=torch.float64).round().expand(200, 784)
    elbo, iwae = [], []
    for _ in range(20):
        elbo.append(one_latent.negative_elbo_bound(x)[0])
        iwae.append(one_latent.negative_iwae_bound(x, 1)[0])
    elbo, iwae = torch.stack(elbo), torch.stack(iwae)
    error = (elbo.var() + iwae.var()).div(20).sqrt()
    assert abs(elbo.mean() - iwae.mean()) < 5 * error


def test_bounds_hold_and_tighten_to_the_exact_likelihood(one_latent):
    x = torch.rand(20, 784, dtype=torch.float64).round()
    exact = -exact_log_likelihood(one_latent, x).mean().item()
    often = x.repeat(20, 1)  # so that the noise is below what the bounds differ by
    loose, tighter, tight = (one_latent.negative_iwae_bound(often, iw)[0] for iw in (1, 10, 100))
    assert loose > tighter + 1
    assert tighter > tight + 0.05
    assert tight > exact - 0.01  # where it is so tight, noise is left
    assert one_latent.negative_elbo_bound(often)[0] > exact + 1
    assert one_latent.negative_iwae_bound(x, 2000)[0].item() == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("different", [True, False])
def test_iwae_is_the_same_in_one_chunk_and_in_many(x, monkeypatch, different):
    model = VAE(z_dim=3)
    # The backward pass draws again, last chunk first: only equal noise is the same there.
    noise = torch.randn(8, 5, 3) if different else torch.randn(5, 3).expand(8, 5, 3)
    results = []
    for rows in (10_000, 10):
        drawn = iter(noise.split(max(1, rows // 5)) * 2)
        monkeypatch.setattr(
            "codebase.models.vae.sample_gaussian",
            lambda m, v, drawn=drawn: m + v.sqrt() * next(drawn),
        )
        monkeypatch.setattr("codebase.models.vae.ROWS_AT_ONCE", rows)
        bounds = model.negative_iwae_bound(x, 8)
        gradients = [] if different else torch.autograd.grad(bounds[0], [*model.dec.parameters()])
        results.append([*bounds, *gradients])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked)


def test_iwae_needs_a_sample(x):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        VAE().negative_iwae_bound(x, 0)


def test_iwae_of_a_thousand_samples_stays_below_one_gigabyte():
    program = """
import resource, torch
from codebase.models.vae import VAE
model, x = VAE(z_dim=10), torch.rand(100, 784).round()
model.negative_iwae_bound(x, 1)[0].backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bound = model.negative_iwae_bound(x, 1000)[0]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown.stdout) * unit < 1e9


def test_samples_have_the_right_shapes_and_values():
    model = VAE(z_dim=3)
    z = model.sample_z(4000)
    assert z.shape == (4000, 3)
    assert abs(z.mean()) < 0.1
    assert z.var().item() == pytest.approx(1, abs=0.1)
    p = model.compute_sigmoid_given(z[:1])
    draws = model.sample_x_given(z[:1].expand(4000, 3))
    assert set(draws.unique().tolist()) == {0, 1}
    torch.testing.assert_close(draws.mean(0), p[0], rtol=0, atol=0.05)
    assert model.sample_x(7).shape == model.sample_sigmoid(7).shape == (7, 784)


def test_model_survives_copies_conversion_and_compilation(x):
    model = VAE(z_dim=3)
    twin = copy.deepcopy(model).to(torch.float64)
    assert twin.z_prior[0] is twin.z_prior_m
    assert twin.z_prior_m.dtype == torch.float64
    assert twin.negative_elbo_bound(x.double())[0].dtype == torch.float64
    assert model.to("meta").negative_elbo_bound(x.to("meta"))[0].device.type == "meta"

    compiled = torch.compile(copy.deepcopy(twin), backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    expected = twin.negative_elbo_bound(x.double())
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(x.double()), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_bounds_do_not_wait_for_the_gpu(x):
    model, x = VAE(z_dim=3).cuda(), x.cuda()
    model.loss(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.loss(x)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
