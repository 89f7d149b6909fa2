"""The bounds on test images."""

import pytest
import torch

from codebase import evaluate
from codebase.data import report_rows
from codebase.models.vae import VAE


def test_test_images_are_binarized_by_the_protocol(synthetic_images):
    state = torch.get_rng_state()
    for x, pixels in [
        (
            evaluate.report_images(synthetic_images),
            synthetic_images.test[report_rows(synthetic_images.test_labels)],
        ),
        (evaluate.all_images(synthetic_images), synthetic_images.test),
    ]:
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(0)
        assert torch.equal(x, torch.bernoulli(pixels.float() / 255))
        torch.set_rng_state(state)


def test_bounds_repeat_and_leave_the_global_random_state(synthetic_images):
    model, x = VAE(z_dim=3), evaluate.report_images(synthetic_images)
    before = torch.get_rng_state()
    first = evaluate.bounds(model, x, 100), evaluate.negative_iwae(model, x, 10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert (evaluate.bounds(model, x, 100), evaluate.negative_iwae(model, x, 10)) == first
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("images", [333, 5000])
def test_bounds_are_the_average_over_passes_with_fresh_noise(images):
    model, x = VAE(z_dim=3), torch.rand(images, 784).round()
    with torch.no_grad():
        model.dec.net[0].weight.mul_(20)  # so that the noise matters
        passes = torch.stack([torch.stack(model.negative_elbo_bound(x)) for _ in range(10)])
    bounds = evaluate.bounds(model, x, 10)
    error = passes[:, 0].std().item() * (2 / 10) ** 0.5
    assert abs(bounds.nelbo - passes[:, 0].mean().item()) < 5 * error
    assert bounds.kl == pytest.approx(passes[:, 1].mean().item(), rel=1e-5)
    assert bounds.nelbo == pytest.approx(bounds.kl + bounds.rec, rel=1e-6)
