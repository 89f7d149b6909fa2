"""A recording of a training step, on a GPU, against the step itself."""

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

from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.recording import CHECK_EVERY, TRUSTED_AFTER
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
    (_, of_a), (b, of_b) = (taken(TRUSTED_AFTER + 20, graph) for graph in (False, True))
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
    (_, of_a), (b, of_b) = (taken(TRUSTED_AFTER + 20, graph) for graph in (False, True))
    assert b.recording.graph is None
    assert of_a == of_b


def test_a_network_with_buffers_is_not_recorded(monkeypatch):
    """Batch normalization counts its calls in a buffer."""

    class Normalized(VAE):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.enc.net.insert(1, torch.nn.BatchNorm1d(300))

    monkeypatch.setattr("codebase.train.VAE", Normalized)
    (_, of_a), (b, of_b) = (taken(TRUSTED_AFTER + 20, graph) for graph in (False, True))
    assert b.recording.graph is None
    assert of_a == of_b
    assert b.model.enc.net[1].num_batches_tracked == TRUSTED_AFTER + 20


def test_a_loss_that_waits_for_the_whole_gpu_is_not_recorded(monkeypatch):
    plain = VAE.loss

    def loss(model, x):
        torch.cuda.synchronize()
        return plain(model, x)

    monkeypatch.setattr(VAE, "loss", loss)
    (_, of_a), (b, of_b) = (taken(TRUSTED_AFTER + 20, graph) for graph in (False, True))
    assert b.recording.graph is None
    assert of_a == of_b
    assert torch.rand(1, device=GPU).isfinite()


PROGRAM = """
import json
from test_recording import TRUSTED_AFTER, taken

(_, of_a), (b, of_b) = (taken(TRUSTED_AFTER + 20, graph) for graph in (False, True))
print(json.dumps([of_a == of_b, b.recording.graph is not None]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bare", "distributions", "of_2021", "randn_like_v", "rsample"])
def test_solutions_of_others_are_recorded_but_for_those_that_wait_for_the_gpu(name, tmp_path):
    """torch.distributions and torch.normal look at the values of their parameters."""
    shutil.copytree(ROOT / "codebase", tmp_path / "codebase")
    for file, place in (("utils.py", "codebase"), ("vae.py", "codebase/models")):
        shutil.copy(ROOT / "tests/solutions" / name / file, tmp_path / place)
    folders = (tmp_path, ROOT / "tests", ROOT / "tests/system", ROOT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [True, name in ("bare", "randn_like_v")]


def test_a_gradient_that_changes_later_is_refused():
    """The loss is the same, and the encoder is left as it is."""
    training, _ = taken(TRUSTED_AFTER + 1, True)
    for parameter in training.model.enc.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match="start anew"):
        for _ in range(CHECK_EVERY):
            training.take_step(IMAGES.train[:10].to(GPU))


def test_a_loss_that_changes_later_is_refused(monkeypatch):
    plain, weights = VAE.loss, [0]

    def loss(model, x):
        loss, summaries = plain(model, x)
        return loss - weights[-1] * summaries["gen/kl_z"], summaries

    monkeypatch.setattr(VAE, "loss", loss)
    training, _ = taken(TRUSTED_AFTER + 1, True)
    assert training.recording.graph is not None
    weights.append(0.5)
    batch = IMAGES.train[:10].to(GPU)
    with pytest.raises(UserError, match=r"at the first steps.* start anew with --cuda_graph 0"):
        for _ in range(CHECK_EVERY):
            training.take_step(batch)
