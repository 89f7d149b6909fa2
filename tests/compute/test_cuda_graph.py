"""Gradients as a CUDA graph, against the same steps without a graph."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.distributions import Normal
from training import IMAGES

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


def assert_not_captured(steps: int = TRUSTED_AFTER + 20) -> Training:
    """Train with and without a CUDA graph: nothing is captured, and the losses are the same."""
    _, expected = trained(steps, False)
    training, losses = trained(steps, True)
    assert training.graphed.graph is None
    assert losses == expected
    return training


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


def by_distribution(m, v):
    return Normal(m, v.sqrt(), validate_args=True).rsample()


def by_rejection(m, v):
    noise = torch.randn_like(v)
    while (far := noise.abs() > 1).any():
        noise[far] = torch.randn(int(far.sum()), device=v.device)
    return m + v.sqrt() * noise


@pytest.mark.parametrize("sample", [by_cpu, by_distribution, by_rejection])
def test_a_solution_that_waits_for_the_gpu_is_not_captured(sample, monkeypatch):
    monkeypatch.setattr("codebase.utils.sample_gaussian", sample)
    assert_not_captured()


class Annealed(VAE):
    """A model that counts its steps, and with them raises the weight of the KL."""

    steps = 0

    def loss(self, x):
        self.steps += 1
        loss, summaries = super().loss(x)
        return loss - summaries["gen/kl_z"] / self.steps, summaries


def test_a_model_that_counts_its_steps_is_not_captured(monkeypatch):
    monkeypatch.setattr("codebase.train.VAE", Annealed)
    assert_not_captured()


def test_a_network_with_buffers_is_not_captured(monkeypatch):
    """Batch normalization counts its calls in a buffer."""

    class Normalized(VAE):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.enc.net.insert(1, torch.nn.BatchNorm1d(300))

    monkeypatch.setattr("codebase.train.VAE", Normalized)
    training = assert_not_captured(TRUSTED_AFTER + 20)
    assert training.model.enc.net[1].num_batches_tracked == TRUSTED_AFTER + 20


def test_a_loss_that_synchronizes_the_gpu_is_not_captured(monkeypatch):
    plain = VAE.loss

    def loss(model, x):
        torch.cuda.synchronize()
        return plain(model, x)

    monkeypatch.setattr(VAE, "loss", loss)
    assert_not_captured()
    assert torch.rand(1, device=GPU).isfinite()


PROGRAM = """
import json
from test_cuda_graph import TRUSTED_AFTER, trained

_, expected = trained(TRUSTED_AFTER + 20, False)
training, losses = trained(TRUSTED_AFTER + 20, True)
print(json.dumps([losses == expected, training.graphed.graph is not None]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bare", "distributions", "of_2021", "randn_like_v", "rsample"])
def test_solutions_of_others_are_captured_unless_they_wait_for_the_gpu(name, tmp_path):
    """torch.distributions and torch.normal read the values of their parameters."""
    shutil.copytree(ROOT / "codebase", tmp_path / "codebase")
    for file, place in (("utils.py", "codebase"), ("vae.py", "codebase/models")):
        shutil.copy(ROOT / "tests/solutions" / name / file, tmp_path / place)
    folders = (tmp_path, ROOT / "tests", ROOT / "tests/compute", ROOT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [True, name in ("bare", "randn_like_v")]


def test_a_gradient_that_changes_later_is_refused():
    """The loss stays the same, but the encoder no longer trains."""
    training, _ = trained(TRUSTED_AFTER + 1, True)
    for parameter in training.model.enc.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match="--cuda_graph 0"):
        for _ in range(CHECK_EVERY):
            training.take_step(IMAGES.train[:10].to(GPU))


def test_a_loss_that_changes_later_is_refused(monkeypatch):
    plain, weights = VAE.loss, [0]

    def loss(model, x):
        loss, summaries = plain(model, x)
        return loss - weights[-1] * summaries["gen/kl_z"], summaries

    monkeypatch.setattr(VAE, "loss", loss)
    training, _ = trained(TRUSTED_AFTER + 1, True)
    assert training.graphed.graph is not None
    weights.append(0.5)
    batch = IMAGES.train[:10].to(GPU)
    with pytest.raises(UserError, match="--cuda_graph 0"):
        for _ in range(CHECK_EVERY):
            training.take_step(batch)
