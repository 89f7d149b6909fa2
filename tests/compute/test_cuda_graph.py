"""Gradients as a CUDA graph, against the same steps without a graph."""

import pytest
import torch
from training import IMAGES, change_loss

from codebase.compute.cuda_graph import CHECK_EVERY, TRUSTED_AFTER
from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.train import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
GPU = torch.device("cuda")
SETTINGS = Settings(batch_size=10, lr_schedule="linear", iter_max=500)


def trained(steps: int, cuda_graph: bool, settings: Settings = SETTINGS) -> tuple[Training, list]:
    """Take training steps, each on other images; return the training and its losses and bounds."""
    training, losses = Training(settings, GPU, cuda_graph=cuda_graph), []
    for step in range(steps):
        batch = IMAGES.train[torch.arange(10) + 10 * (step % 20)].to(GPU)
        losses.append(training.take_step(batch))
    return training, torch.stack(losses).tolist()


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS._replace(kl_weight=4.0)])
def test_a_cuda_graph_computes_the_same_bits(settings):
    plain, expected = trained(2 * CHECK_EVERY + 50, False, settings)
    graphed, losses = trained(2 * CHECK_EVERY + 50, True, settings)
    assert plain.graphed is None
    assert graphed.graphed.graph is not None
    assert losses == expected
    for p, q in zip(plain.model.parameters(), graphed.model.parameters(), strict=True):
        assert torch.equal(p, q)


def by_cpu(m, v):
    return m + v.sqrt() * torch.randn(m.shape).to(m.device, non_blocking=True)


def by_rejection(m, v):
    noise = torch.randn_like(v)
    while (far := noise.abs() > 1).any():
        noise[far] = torch.randn(int(far.sum()), device=v.device)
    return m + v.sqrt() * noise


class Annealed(VAE):
    """A model that counts its steps, and with them raises the weight of the KL."""

    steps = 0

    def loss(self, x):
        self.steps += 1
        loss, summaries = super().loss(x)
        return loss - summaries["gen/kl_z"] / self.steps, summaries


class Normalized(VAE):
    """A model with batch normalization, which counts its calls in a buffer."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.enc.net.insert(1, torch.nn.BatchNorm1d(300))


@pytest.mark.parametrize(
    ("name", "solution"),
    [
        *(("codebase.utils.sample_gaussian", sample) for sample in (by_cpu, by_rejection)),
        *(("codebase.train.VAE", model) for model in (Annealed, Normalized)),
    ],
)
def test_a_solution_that_waits_for_the_gpu_or_changes_itself_is_not_captured(
    monkeypatch, name, solution
):
    monkeypatch.setattr(name, solution)
    steps = TRUSTED_AFTER + 20
    _, expected = trained(steps, False)
    training, losses = trained(steps, True)
    assert training.graphed.graph is None
    assert losses == expected
    assert torch.rand(1, device=GPU).isfinite()  # the generator still works
    if solution is Normalized:
        assert training.model.enc.net[1].num_batches_tracked == steps


@pytest.mark.parametrize("change", ["loss", "gradient"])
def test_a_step_that_changes_later_is_refused(monkeypatch, change):
    """The gradient changes alone if the encoder no longer trains."""
    weights = [0]
    change_loss(monkeypatch, lambda loss, kl: loss - weights[-1] * kl)
    training, _ = trained(TRUSTED_AFTER + 1, True)
    assert training.graphed.graph is not None
    if change == "loss":
        weights.append(0.5)
    else:
        for parameter in training.model.enc.parameters():
            parameter.requires_grad_(False)
    with pytest.raises(UserError, match="--cuda_graph 0"):
        for _ in range(CHECK_EVERY):
            training.take_step(IMAGES.train[:10].to(GPU))
