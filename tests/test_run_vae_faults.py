"""The command line if something is missing, damaged, unusual or cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SCRIPT

from codebase import utils
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.errors import ONLY_MEASURED

RUN = RunFolder(Settings("tiny", 3, dataset="synthetic", iter_max=30))


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def failure(finished, status):
    """The sentence with which the command failed."""
    assert finished.returncode == status, finished.stderr
    *_, sentence = finished.stderr.splitlines()
    assert sentence.startswith("run_vae.py: ")
    assert "Traceback" not in finished.stderr
    return sentence


def test_a_missing_checkpoint_is_named_with_the_existing_ones(run_vae, small):
    RUN.path.mkdir(parents=True)
    for step in (20, 100):
        RUN.model(step).touch()
    sentence = failure(run_vae(*small, "--train", 0), 1)
    assert f"no checkpoint {RUN.model(30)}" in sentence
    assert "model-00020.pt, model-00100.pt; choose one with --iter_max" in sentence


@pytest.mark.parametrize("damage", ["other networks", "cut"])
def test_an_unusable_checkpoint_is_one_sentence(run_vae, small, damage):
    path = RUN.model(30)
    path.parent.mkdir(parents=True)
    model = VAE(nn="v1" if damage == "other networks" else "tiny", z_dim=3)
    checkpoint.save(checkpoint.plain_parameters(model), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in failure(run_vae(*small, "--train", 0), 1)


@pytest.mark.slow
def test_a_model_of_the_synthetic_digits_is_not_measured_on_mnist(run_vae, small, mnist_dir):
    assert run_vae(*small).returncode == 0
    for dataset in ("auto", "mnist"):
        options = ("--dataset", dataset, "--data_dir", mnist_dir, "--train", 0)
        sentence = failure(run_vae(*small, *options), 1)
        assert "no checkpoint checkpoints/model=vae_nn=tiny_z=03_run=0000/model-000" in sentence


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_missing_data_is_one_sentence_with_two_solutions(run_vae, small, dataset):
    """A folder that is named and has no MNIST is perhaps a slip of typing."""
    sentence = failure(run_vae(*small, "--dataset", dataset, "--data_dir", "nowhere"), 1)
    assert "could not be downloaded" in sentence
    assert "files there" in sentence
    assert "--dataset synthetic" in sentence
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_auto_trains_on_synthetic_digits_without_a_network(run_vae, small, tmp_path):
    """Here the folder of the download cannot be created either."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").write_text("a file")
    finished = run_vae(*small, "--dataset", "auto")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("Warning: ") == 1
    assert "--data_dir" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(bounds_of(finished.stdout)) == 2
    assert all("(synthetic, " in line for line in bounds_of(finished.stdout))
    # The run's name has the data set, so that the model is not measured on MNIST later.
    assert [path.name for path in tmp_path.glob("checkpoints/model*")] == [RUN.path.name]


def test_a_tilde_in_data_dir_is_the_home_folder(run_vae, small, tmp_path, monkeypatch):
    """The shell does not expand --data_dir=~/mnist."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sentence = failure(run_vae(*small, "--dataset", "mnist", "--data_dir=~/mnist"), 1)
    assert f"{tmp_path}/home/mnist/MNIST/raw" in sentence
    assert not Path("~").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(run_vae, small, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    assert "checkpoints" in failure(run_vae(*small), 1)


@pytest.mark.slow
def test_diverged_weights_are_not_saved(run_vae, small):
    """After a step with learning rate 1e9 the weights are finite, but the bound is not."""
    huge = (*small, "--nn", "v1", "--lr", "1e9", "--iter_save", 1)
    sentence = failure(run_vae(*huge, "--iter_max", 200), 1)
    assert "diverged" in sentence and "step 1 " in sentence
    assert "last good checkpoint: none;" in sentence
    assert "no checkpoint" in failure(run_vae(*huge, "--iter_max", 1, "--train", 0), 1)


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_does_not_stop_the_report(run_vae, small):
    for name in ("visualizing_result", "interpolation"):
        (RUN.path / f"{name}.png").mkdir(parents=True)
    finished = run_vae(*small, "--figures", 1)
    assert finished.returncode == 3
    assert len(bounds_of(finished.stdout)) == 2
    for name in ("visualizing_result", "interpolation"):
        assert f"run_vae.py: {RUN.path}/{name}.png: Is a directory\n" in finished.stderr
    written = [path.stem for path in sorted(RUN.path.glob("*.png")) if path.is_file()]
    assert written == ["latent_space", "learning_curve", "reconstructions"]


@pytest.mark.slow
def test_the_runs_folder_gets_its_picture_if_the_current_folder_cannot(run_vae):
    Path("visualizing_result.png").mkdir()
    finished = run_vae("--dataset", "synthetic", "--iter_max", 1)
    assert finished.returncode == 3
    assert finished.stderr.endswith("run_vae.py: visualizing_result.png: Is a directory\n")
    assert len(bounds_of(finished.stdout)) == 2
    folder = Path("checkpoints/model=vae_z=10_dataset=synthetic_run=0000")
    assert (folder / "visualizing_result.png").is_file()


@pytest.mark.slow
def test_a_solution_may_lack_the_importance_weighted_bound(run_vae, small, monkeypatch):
    """In some years the assignment does not ask for it."""
    assert run_vae(*small).returncode == 0
    monkeypatch.delattr(VAE, "negative_iwae_bound")
    finished = run_vae(*small, "--train", 0)
    assert finished.returncode == 0
    assert finished.stderr.count("\n") == 1
    assert "codebase.models.vae has no negative_iwae_bound" in finished.stderr
    assert len(bounds_of(finished.stdout)) == 2
    assert "IWAE" not in finished.stdout
    assert "Visualization saved at " in finished.stdout


def run_without(module, *arguments):
    """Run the script as if a module were not installed."""
    hide = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = sys.argv[1:]"
    program = f"{hide}; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program, SCRIPT, *arguments],
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)},
        capture_output=True,
        text=True,
    )


def test_a_library_that_is_not_installed_is_named():
    sentence = failure(run_without("torch"), 1)
    assert "torch" in sentence and sentence.endswith("pip install -r requirements.txt")
    for quick in (["--help"], ["--z", "0"]):  # need no library
        assert "pip" not in run_without("torch", *quick).stderr


@pytest.mark.slow
def test_an_encoding_without_umlauts_is_enough(start, script, small):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start(script, *small, "--data_dir", "dätä", env=environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert " --data_dir d\\xe4t\\xe4\n" in output
    assert "\nSaved to checkpoints/" in output
    assert output.count("\nNELBO: ") == 2
    assert "Visualization saved at " in output


def test_a_bound_that_overflows_is_reported_and_not_saved(run_vae, small, monkeypatch):
    monkeypatch.setattr(utils, "log_mean_exp", lambda x, dim: x.exp().mean(dim).log())
    finished = run_vae(*small, "--train", 2)
    assert finished.returncode == ONLY_MEASURED
    (sentence,) = [line for line in finished.stderr.splitlines() if line.startswith("run_vae.py")]
    assert "log_mean_exp" in sentence
    (results,) = Path("checkpoints").glob("*/results-*.json")
    assert json.loads(results.read_text(), parse_constant=pytest.fail)["negative IWAE"] == {}


def test_a_model_whose_bounds_are_not_finite_is_not_reported(run_vae, small, monkeypatch):
    assert run_vae(*small).returncode == 0
    monkeypatch.setattr(utils, "kl_normal", lambda qm, qv, pm, pv: qm.sum(-1) * torch.inf)
    finished = run_vae(*small, "--train", 0)
    assert finished.returncode == 1 and "NELBO" not in finished.stdout
    assert "not finite" in finished.stderr and "Traceback" not in finished.stderr
