"""The command line where something is missing, damaged, unusual or cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPT

from codebase.models.vae import VAE
from codebase.runs import checkpoint

NAME = "model=vae_nn=tiny_z=03_dataset=synthetic_run=0000"


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def failure(finished, status):
    """The one sentence with which the command failed."""
    assert finished.returncode == status, finished.stderr
    *_, sentence = finished.stderr.splitlines()
    assert sentence.startswith("run_vae.py: ")
    assert "Traceback" not in finished.stderr
    return sentence


def test_a_missing_checkpoint_is_named_with_the_steps_that_exist(run_vae, small):
    folder = Path("checkpoints", NAME)
    folder.mkdir(parents=True)
    for step in (20, 100):
        (folder / f"model-{step:05d}.pt").touch()
    sentence = failure(run_vae(*small, "--train", 0), 1)
    assert f"no checkpoint checkpoints/{NAME}/model-00030.pt" in sentence
    assert sentence.endswith("steps saved in its folder: 20, 100; choose one with --iter_max")


@pytest.mark.parametrize("damage", ["other networks", "cut"])
def test_an_unusable_checkpoint_is_one_sentence(run_vae, small, damage):
    path = Path("checkpoints", NAME, "model-00030.pt")
    path.parent.mkdir(parents=True)
    checkpoint.save_model(VAE(nn="v1" if damage == "other networks" else "tiny", z_dim=3), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in failure(run_vae(*small, "--train", 0), 1)


@pytest.mark.slow
def test_a_model_of_the_synthetic_digits_is_not_measured_on_mnist(run_vae, small, mnist_dir):
    assert run_vae(*small).returncode == 0
    for dataset in ("auto", "mnist"):
        of_mnist = ("--dataset", dataset, "--data_dir", mnist_dir, "--train", 0)
        sentence = failure(run_vae(*small, *of_mnist), 1)
        assert "no checkpoint checkpoints/model=vae_nn=tiny_z=03_run=0000/model-000" in sentence


def test_missing_data_is_one_sentence_with_both_ways_out(run_vae, small):
    sentence = failure(run_vae(*small, "--dataset", "mnist", "--data_dir", "nowhere"), 1)
    assert "could not be downloaded" in sentence
    assert "put its four files there" in sentence
    assert "--dataset synthetic" in sentence


@pytest.mark.slow
def test_without_a_network_auto_is_the_synthetic_digits(run_vae, small, tmp_path):
    """Even where nothing can be written below the data folder: a file is in the way."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").write_text("a file")
    finished = run_vae(*small, "--dataset", "auto")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("Warning: using the synthetic digits") == 1
    assert "Traceback" not in finished.stderr
    assert len(bounds_of(finished.stdout)) == 2
    assert all("(synthetic, " in line for line in bounds_of(finished.stdout))
    # What was trained on them is named after them, so that nothing measures it on MNIST.
    assert [path.name for path in tmp_path.glob("checkpoints/model*")] == [NAME]


def test_the_home_is_a_tilde(run_vae, small, tmp_path, monkeypatch):
    """Also where no shell has seen it, as in --data_dir=~/mnist."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sentence = failure(run_vae(*small, "--dataset", "mnist", "--data_dir=~/mnist"), 1)
    assert f"MNIST is not in {tmp_path}/home/mnist/MNIST/raw and" in sentence
    assert not Path("~").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(run_vae, small, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    assert "checkpoints" in failure(run_vae(*small), 1)


@pytest.mark.slow
def test_diverged_weights_are_never_a_checkpoint(run_vae, small):
    """A learning rate of 1e9 leaves finite weights after a step, whose bound is not."""
    huge = (*small, "--nn", "v1", "--lr", "1e9", "--iter_save", 1)
    sentence = failure(run_vae(*huge, "--iter_max", 200), 1)
    assert "diverged: at step 1 " in sentence
    assert "last good checkpoint in checkpoints/model" in sentence
    assert ": none; a smaller --lr may help" in sentence
    assert "no checkpoint" in failure(run_vae(*huge, "--iter_max", 1, "--train", 0), 1)


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_costs_nothing_else(run_vae, small):
    folder = Path("checkpoints", NAME)
    for name in ("visualizing_result", "interpolation"):
        (folder / f"{name}.png").mkdir(parents=True)
    finished = run_vae(*small, "--figures", 1)
    assert finished.returncode == 3
    assert len(bounds_of(finished.stdout)) == 2
    for name in ("visualizing_result", "interpolation"):
        assert f"run_vae.py: {folder}/{name}.png: Is a directory\n" in finished.stderr
    drawn = [path.stem for path in sorted(folder.glob("*.png")) if path.is_file()]
    assert drawn == ["latent_space", "learning_curve", "reconstructions"]


@pytest.mark.slow
def test_where_the_current_folder_cannot_be_written_the_runs_own_gets_the_picture(run_vae):
    Path("visualizing_result.png").mkdir()
    finished = run_vae("--dataset", "synthetic", "--iter_max", 1)
    assert finished.returncode == 3
    assert finished.stderr.endswith("run_vae.py: visualizing_result.png: Is a directory\n")
    assert len(bounds_of(finished.stdout)) == 2
    folder = Path("checkpoints/model=vae_z=10_dataset=synthetic_run=0000")
    assert (folder / "visualizing_result.png").is_file()


@pytest.mark.slow
def test_a_solution_without_an_importance_weighted_bound_lacks_only_that(
    run_vae, small, monkeypatch
):
    """Since it is not in the task of every year."""
    assert run_vae(*small).returncode == 0
    monkeypatch.delattr(VAE, "negative_iwae_bound")
    finished = run_vae(*small, "--train", 0)
    assert finished.returncode == 0
    sentence = "codebase.models.vae has no negative_iwae_bound, which this needs"
    assert finished.stderr == f"run_vae.py: {sentence}\n"
    assert len(bounds_of(finished.stdout)) == 2
    assert "IWAE" not in finished.stdout
    assert "Visualization saved at " in finished.stdout


def test_networks_that_a_page_cannot_compute_are_known_before_they_are_trained(run_vae, small):
    sentence = failure(run_vae(*small, "--explorer", 1), 1)
    assert "the networks of " in sentence
    assert not [*Path("checkpoints").glob("*/*")]


def run_without(module, *arguments):
    """Run the script where a module is not installed."""
    hide = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = sys.argv[1:]"
    program = f"{hide}; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program, SCRIPT, *arguments],
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)},
        capture_output=True,
        text=True,
    )


def test_what_is_not_installed_is_named():
    sentence = failure(run_without("torch"), 1)
    assert sentence == "run_vae.py: torch is not installed: pip install -r requirements.txt"
    for quick in (["--help"], ["--z", "0"]):  # answers without what is slow to import
        assert "not installed" not in run_without("torch", *quick).stderr


@pytest.mark.slow
def test_the_program_is_found_where_python_does_not_look_beside_it(start):
    process = start(SCRIPT, "--help", env=os.environ | {"PYTHONSAFEPATH": "1"})
    output, errors = process.communicate()
    assert (output[:6], errors, process.returncode) == ("usage:", "", 0)


@pytest.mark.slow
def test_surroundings_do_not_matter(start, script, small):
    """An encoding, a way to show pictures, and bars that nobody watches any more."""
    surroundings = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "unknown"}
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | surroundings
    process = start(script, *small, "--data_dir", "dätä", env=environment, stderr=writer)
    os.close(writer)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert " --data_dir d\\xe4t\\xe4\n" in output
    assert "\nSaved to checkpoints/" in output
    assert output.count("\nNELBO: ") == 2
    assert "Visualization saved at " in output
