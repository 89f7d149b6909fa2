"""The command line, as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SCRIPT

from codebase import evaluate, visualize
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import model_path, run_folder, saved_steps
from codebase.runs.metrics import bounds_after, read_metrics
from codebase.settings import Settings
from codebase.system.seeds import seeded
from codebase.train import load_trained, train

CPU = torch.device("cpu")
NAME = "model=vae_nn=tiny_z=03_dataset=synthetic_run=0000"
SMALL = Settings("tiny", 3, dataset="synthetic", iter_max=30)
PICTURES = ["interpolation", "latent_space", "learning_curve", "progress", "reconstructions"]
PICTURES += ["visualizing_result"]


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def lines_of(measured):
    """The lines that tell the bounds of a model of the synthetic digits."""
    labels = {evaluate.TEST: "100 test images", evaluate.ALL_TEST: "all 10000 test images"}
    return [
        f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}        (synthetic, {labels[name]})"
        for name, (nelbo, kl, rec) in measured.items()
    ]


def failure(finished, status):
    """The one sentence with which the command failed."""
    assert finished.returncode == status, finished.stderr
    *_, sentence = finished.stderr.splitlines()
    assert sentence.startswith("run_vae.py: ")
    assert "Traceback" not in finished.stderr
    return sentence


@pytest.mark.slow
def test_a_run_trains_and_says_what_it_does(run_vae, small, synthetic_images):
    trained = run_vae(*small, "--iter_save", 20, "--figures", 1)
    assert trained.returncode == 0, trained.stderr
    folder = Path("checkpoints", NAME)
    lines = trained.stdout.splitlines()
    start = lines.index(f"Model name: {NAME}")
    given = "Arguments: --z 3 --iter_max 30 --iter_save 20 --nn tiny --dataset synthetic"
    assert lines[start - 1] == f"{given} --figures 1"
    assert lines[start + 1 : start + 5] == [
        "Device: cpu",
        "Data: synthetic, 60000 training and 10000 test images",
        f"Saved to {folder}/model-00020.pt",
        f"Saved to {folder}/model-00030.pt",
    ]
    assert "run 0: 100%" in trained.stderr
    assert "30/30" in trained.stderr
    assert "loss=" in trained.stderr
    assert saved_steps(folder) == [20, 30]
    pictures = [folder / f"{name}.png" for name in PICTURES]
    assert sorted(folder.glob("*.png")) == pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert sorted(line for line in lines if line.startswith("Visualization")) == [
        f"Visualization saved at {path}" for path in pictures
    ]
    assert not Path("visualizing_result.png").exists()  # that is for the assignment's settings
    model = load_trained(SMALL, CPU)
    assert bounds_of(trained.stdout) == lines_of(evaluate.measure(model, synthetic_images))
    with seeded(evaluate.SEED, CPU):
        visualize.visualize_samples(model, save_path="expected.png", title=SMALL.title)
    assert Path("expected.png").read_bytes() == (folder / "visualizing_result.png").read_bytes()


@pytest.mark.slow
def test_a_model_that_is_loaded_is_measured_further(run_vae, small, synthetic_images):
    trained = run_vae(*small)
    folder = Path("checkpoints", NAME)
    picture = (folder / "visualizing_result.png").read_bytes()
    loaded = run_vae(*small, "--train", 0)
    assert loaded.returncode == 0, loaded.stderr
    assert bounds_of(loaded.stdout) == bounds_of(trained.stdout)
    assert "Saved to" not in loaded.stdout
    iwae = [line.split(": ") for line in loaded.stdout.splitlines() if "IWAE" in line]
    assert [name for name, _ in iwae] == [f"Negative IWAE-{k}" for k in (1, 10, 100, 1000)]
    values = [float(value) for _, value in iwae]
    assert values == sorted(values, reverse=True)
    assert abs(values[0] - bounds_after(folder, 30)[evaluate.TEST].nelbo) < 1
    model, x = load_trained(SMALL, CPU), evaluate.subset_images(synthetic_images)
    for k, (_, value) in zip((1, 10, 100, 1000), iwae, strict=True):
        assert value == f"{evaluate.negative_iwae(model, x, k):.4f}"
    assert (folder / "visualizing_result.png").read_bytes() == picture
    kept = json.loads((folder / "results-00030.json").read_text())
    assert [f"{value:.4f}" for value in kept["negative IWAE"].values()] == [v for _, v in iwae]
    assert [*kept["negative IWAE"]] == ["1", "10", "100", "1000"]
    rows = bounds_after(folder, 30)
    for name, row in rows.items():
        assert [*kept[name].values()] == [*row.bounds]
    of_each = kept["KL of each latent dimension"]
    assert len(of_each) == 3
    assert sum(of_each) == pytest.approx(rows[evaluate.TEST].kl, rel=1e-4)


@pytest.mark.slow
def test_runs_are_compared_from_their_folders_alone(run_vae, small):
    for more in ((), ("--run", 1), ("--kl_weight", 4)):
        assert run_vae(*small, *more).returncode == 0
    compared = run_vae("--compare", 1, "--data_dir", "nowhere", "--dataset", "mnist")
    assert (compared.returncode, compared.stderr) == (0, "")
    *_, first, second = compared.stdout.splitlines()
    starts = {line.removeprefix("| ").split(" | ")[0] for line in (first, second)}
    settings = "nn=tiny, z=03, dataset=synthetic"
    assert starts == {settings, settings.replace("dataset", "kl_weight=4.0, dataset")}
    Path("checkpoints").rename("elsewhere")
    assert "there are no runs with bounds" in failure(run_vae("--compare", 1), 1)


@pytest.mark.slow
def test_what_is_printed_at_the_end_is_what_the_folder_holds_measured_once(
    run_vae, small, monkeypatch
):
    measured, bounds = [], evaluate.bounds
    monkeypatch.setattr(
        evaluate, "bounds", lambda *arguments: measured.append(1) or bounds(*arguments)
    )
    folder = Path("checkpoints", NAME)
    for again in ((), ("--resume", 1)):
        finished = run_vae(*small, *again)
        assert finished.returncode == 0
        rows = bounds_after(folder, 30)
        assert lines_of({name: row.bounds for name, row in rows.items()}) == bounds_of(
            finished.stdout
        )
        assert len(measured) == 2  # on either set of test images
    assert [row.seconds > 0 for row in rows.values()] == [True, True]


@pytest.mark.slow
def test_a_model_from_elsewhere_is_measured_and_its_bounds_are_kept(run_vae, small):
    """Of another solution, say: there is a file of it and nothing else."""
    run_vae(*small)  # so that the networks are known
    folder = Path("checkpoints", NAME)
    model = VAE(nn="tiny", z_dim=3)
    folder.rename("elsewhere")
    folder.mkdir()
    torch.save({"state_dict": model.state_dict()}, folder / "model-00030.pt")
    loaded = run_vae(*small, "--train", 0)
    assert loaded.returncode == 0, loaded.stderr
    rows = bounds_after(folder, 30)
    assert bounds_of(loaded.stdout) == lines_of({name: row.bounds for name, row in rows.items()})
    assert len(read_metrics(folder)) == 2
    assert all(row.seconds != row.seconds for row in rows.values())  # nobody knows


@pytest.mark.slow
def test_every_setting_reaches_the_run(run_vae, small, synthetic_images, tmp_path, monkeypatch):
    finished = run_vae(
        *(*small, "--z", 2, "--iter_max", 12, "--iter_save", 5, "--batch_size", 7, "--run", 4),
        *("--lr", "5e-4", "--lr_schedule", "linear", "--kl_weight", "2.5"),
    )
    assert finished.returncode == 0, finished.stderr
    chosen = Settings("tiny", 2, 7, 5e-4, "linear", 2.5, 12, "synthetic", 4)
    folder = run_folder(chosen)
    models = [model_path(folder, step).read_bytes() for step in (5, 10, 12)]
    assert f"Model name: {folder.name}\n" in finished.stdout

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    train(chosen, synthetic_images, CPU, iter_save=5)
    assert models == [model_path(folder, step).read_bytes() for step in (5, 10, 12)]


@pytest.mark.slow
def test_the_middle_of_a_falling_rate_is_no_shorter_run(run_vae, small):
    """As it is with a constant rate, where the models of all steps are of one run."""
    constant = (*small, "--iter_save", 10)
    assert run_vae(*constant).returncode == 0
    assert run_vae(*constant, "--iter_max", 20, "--train", 0).returncode == 0
    linear = (*constant, "--lr_schedule", "linear")
    assert run_vae(*linear).returncode == 0
    sentence = failure(run_vae(*linear, "--iter_max", 20, "--train", 0), 1)
    folder = NAME.replace("_dataset", "_lr_schedule=linear_iter_max=20_dataset")
    assert f"there is no checkpoint checkpoints/{folder}/model-00020.pt; " in sentence


@pytest.mark.slow
def test_a_longer_run_goes_on_from_a_shorter_one(run_vae, small):
    first = run_vae(*small, "--iter_max", 10)
    assert first.returncode == 0, first.stderr
    longer = run_vae(*small, "--resume", 1)
    assert longer.returncode == 0, longer.stderr
    assert "Resuming at step 10\n" in longer.stdout
    assert "model-00010.pt" not in longer.stdout  # it was there
    anew = run_vae(*small)
    assert f"The earlier run is now checkpoints/{NAME}.1; --resume 1 would" in anew.stdout
    models = [Path("checkpoints", name, "model-00030.pt") for name in (NAME, f"{NAME}.1")]
    assert models[0].read_bytes() == models[1].read_bytes()


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


@pytest.mark.slow
def test_a_model_of_the_synthetic_digits_is_not_measured_on_mnist(run_vae, small, mnist_dir):
    assert run_vae(*small).returncode == 0
    for dataset in ("auto", "mnist"):
        of_mnist = ("--dataset", dataset, "--data_dir", mnist_dir, "--train", 0)
        sentence = failure(run_vae(*small, *of_mnist), 1)
        assert "no checkpoint checkpoints/model=vae_nn=tiny_z=03_run=0000/model-000" in sentence


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


def test_missing_data_is_one_sentence_with_both_ways_out(run_vae, small):
    sentence = failure(run_vae(*small, "--dataset", "mnist", "--data_dir", "nowhere"), 1)
    assert "could not be downloaded" in sentence
    assert "put its four files there" in sentence
    assert "--dataset synthetic" in sentence


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


def test_train_2_trains_and_measures_further(run_vae, small):
    trained, loaded = run_vae(*small, "--train", 2), run_vae(*small, "--train", 0)
    assert trained.returncode == 0, trained.stderr
    assert "Saved to" in trained.stdout
    iwae = [line for line in loaded.stdout.splitlines() if "IWAE" in line]
    assert [line for line in trained.stdout.splitlines() if "IWAE" in line] == iwae
    assert len(iwae) == 4


def test_the_home_is_a_tilde(run_vae, small, tmp_path, monkeypatch):
    """Also where no shell has seen it, as in --data_dir=~/mnist."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sentence = failure(run_vae(*small, "--dataset", "mnist", "--data_dir=~/mnist"), 1)
    assert f"MNIST is not in {tmp_path}/home/mnist/MNIST/raw and" in sentence
    assert not Path("~").exists()


@pytest.mark.slow
def test_the_program_is_found_where_python_does_not_look_beside_it(start):
    process = start(SCRIPT, "--help", env=os.environ | {"PYTHONSAFEPATH": "1"})
    output, errors = process.communicate()
    assert (output[:6], errors, process.returncode) == ("usage:", "", 0)


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


@pytest.mark.slow
def test_samples_of_the_assignments_settings_have_the_name_that_it_gives_them(run_vae):
    """Beside the program, whatever the images; `z` is the assignment's here, and the run any."""
    finished = run_vae("--dataset", "synthetic", "--iter_max", 1, "--run", 3)
    assert finished.returncode == 0, finished.stderr
    name = "visualizing_result.png"
    folder = Path("checkpoints/model=vae_z=10_dataset=synthetic_run=0003")
    for line in (f"Visualization saved at ./{name}", f"Visualization saved at {folder}/{name}"):
        assert line in finished.stdout.splitlines()
    assert Path(name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_the_explorer_is_written_beside_the_model(run_vae, small):
    finished = run_vae(*small, "--nn", "v1", "--iter_max", 2, "--explorer", 1)
    assert finished.returncode == 0, finished.stderr
    path = Path("checkpoints/model=vae_z=03_dataset=synthetic_run=0000/explorer.html")
    assert f"Explorer saved at {path}; open it in a browser" in finished.stdout.splitlines()
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert f'"{path.parent.name}, 2 steps, synthetic"' in page
