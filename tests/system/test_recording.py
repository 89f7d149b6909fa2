"""A recording of a training step, on a GPU, against the step itself."""

import pytest
import torch
from torch.distributions import Normal
from training import IMAGES

from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.recording import CHECK_EVERY, TRIED
from codebase.train import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
GPU = torch.device("cuda")
SETTINGS = Settings(batch_size=10, lr_schedule="linear", iter_max=500)


def taken(steps: int, cuda_graph: bool, settings: Settings = SETTINGS) -> tuple[Training, list]:
    """A training after so many steps, each on other images, and the loss at each of them."""
    training, losses = Training(settings, GPU, cuda_graph=cuda_graph), []
    for step in range(steps):
        batch = IMAGES.train[torch.arange(10) + 10 * (step % 20)].to(GPU)
        losses.append(training.take_step(batch)[0])
    return training, torch.stack(losses).tolist()


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS._replace(kl_weight=4.0)])
def test_a_recording_computes_the_bits_of_the_steps_themselves(settings):
    (a, of_a), (b, of_b) = (taken(2 * CHECK_EVERY + 50, graph, settings) for graph in (False, True))
    assert a.recording is None
    assert b.recording.graph is not None
    assert of_a == of_b
    for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(p, q)


def of_numbers(m, v):
    return m + v.sqrt() * torch.randn(m.shape).to(m.device, non_blocking=True)


def of_a_distribution(m, v):
    return Normal(m, v.sqrt(), validate_args=True).rsample()


def by_rejection(m, v):
    noise = torch.randn_like(v)
    while (far := noise.abs() > 1).any():
        noise[far] = torch.randn(int(far.sum()), device=v.device)
    return m + v.sqrt() * noise


@pytest.mark.parametrize("draw", [of_numbers, of_a_distribution, by_rejection])
def test_a_solution_that_waits_for_the_gpu_is_not_recorded(draw, monkeypatch):
    monkeypatch.setattr("codebase.utils.sample_gaussian", draw)
    (_, of_a), (b, of_b) = (taken(TRIED + 20, graph) for graph in (False, True))
    assert b.recording.graph is None
    assert of_a == of_b


class Annealed(VAE):
    """The KL counts for more from step to step, and the model counts the steps itself."""

    steps = 0

    def loss(self, x):
        self.steps += 1
        loss, summaries = super().loss(x)
        return loss - summaries["gen/kl_z"] / self.steps, summaries


def test_a_model_that_counts_its_steps_is_not_recorded(monkeypatch):
    monkeypatch.setattr("codebase.train.VAE", Annealed)
    training, _ = taken(TRIED + 20, True)
    assert training.recording.graph is None


def test_a_loss_that_changes_later_is_refused(monkeypatch):
    plain, weights = VAE.loss, [0]

    def loss(model, x):
        loss, summaries = plain(model, x)
        return loss - weights[-1] * summaries["gen/kl_z"], summaries

    monkeypatch.setattr(VAE, "loss", loss)
    training, _ = taken(TRIED + 1, True)
    assert training.recording.graph is not None
    weights.append(0.5)
    batch = IMAGES.train[:10].to(GPU)
    with pytest.raises(UserError, match=r"changes from step to step.* use --cuda_graph 0"):
        for _ in range(CHECK_EVERY):
            training.take_step(batch)
