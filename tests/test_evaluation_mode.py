"""Models with dropout and batch normalization are measured and sampled in evaluation mode."""

import copy

import pytest
import torch
from conftest import NETWORKS

from codebase import evaluate
from codebase.models import nns
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples


@pytest.fixture
def model(monkeypatch):
    """A model in training mode, apart from one frozen layer, with batch statistics of its own."""
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
    model = VAE(nn="normalized", z_dim=3)
    for _ in range(50):
        model.loss(torch.rand(20, 784).round())
    model.enc.net[1].eval()
    return model


X = torch.rand(30, 784, generator=torch.Generator().manual_seed(0)).round()
MEASUREMENTS = {
    "bounds": lambda model: evaluate.bounds(model, X, 3),
    "IWAE": lambda model: evaluate.negative_iwae(model, X, 7),
    "KL": lambda model: evaluate.kl_of_dimensions(model, X).tolist(),
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_a_measurement_is_that_of_the_model_in_evaluation_mode(model, measure):
    assert measure(model) == measure(copy.deepcopy(model).eval())


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_a_measurement_changes_neither_modes_nor_statistics(model, measure):
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    measure(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_modes_are_restored_after_an_error(model):
    with pytest.raises(ZeroDivisionError), evaluate.evaluation_mode(model):
        assert not model.training
        _ = 1 / 0
    assert model.training and not model.enc.net[1].training


def test_the_bound_with_more_samples_is_tighter(model):
    """In training mode, the statistics of the copies of an image make the bound worse."""
    nelbo = evaluate.bounds(model, X, 100).nelbo
    assert evaluate.negative_iwae(model, X, 100) < nelbo


def test_a_single_sample_needs_no_batch_statistics(model, tmp_path):
    visualize_samples(model, 1, (1, 1), save_path=tmp_path / "one.png")
    assert model.training


def test_the_program_trains_and_reports_such_a_model(run_vae):
    small = ("--dataset", "synthetic", "--nn", "normalized", "--z", "3", "--iter_max", "40")
    trained = run_vae(*small, "--figures", 1)
    assert trained.returncode == 0, trained.stderr
    loaded = run_vae(*small, "--train", 0)
    assert loaded.returncode == 0, loaded.stderr
    assert [line for line in loaded.stdout.splitlines() if line.startswith("NELBO")] == [
        line for line in trained.stdout.splitlines() if line.startswith("NELBO")
    ]
