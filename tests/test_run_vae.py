"""The command line: training, resuming, loading, and the report."""

import json
import math
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from codebase import evaluate, visualize
from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_results
from codebase.settings import Settings
from codebase.system.seeds import seeded
from codebase.train import load_trained, train

CPU = torch.device("cpu")
NAME = "model=vae_nn=tiny_z=03_dataset=synthetic_run=0000"
SMALL = Settings("tiny", 3, dataset="synthetic", iter_max=30)
RUN = RunFolder(SMALL)
PICTURES = ["interpolation", "latent_space", "learning_curve", "reconstructions"]
PICTURES += ["visualizing_result"]


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def lines_of(measured):
    """The two lines of the report with the bounds of a model of the synthetic digits."""
    labels = ("100 test images", "all 300 test images")
    errors = ("", f" ± {measured.all.error:.2f}")
    return [
        f"NELBO: {nelbo:.2f}{error}. KL: {kl:.2f}. REC: {rec:.2f}  (synthetic, {label})"
        for (nelbo, kl, rec, _), error, label in zip(measured[:2], errors, labels, strict=True)
    ]


@pytest.mark.slow
def test_a_run_trains_and_reports(run_vae, small, synthetic_images):
    trained = run_vae(*small, "--iter_save", 20)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert lines[:6] == [
        "Arguments: --z 3 --iter_max 30 --iter_save 20 --nn tiny --dataset synthetic",
        f"Model name: {NAME}",
        "Device: cpu",
        "Data: synthetic, 600 training and 300 test images",
        f"Saved to checkpoints/{NAME}/model-00020.pt",
        f"Saved to checkpoints/{NAME}/model-00030.pt",
    ]
    assert "run 0: 100%" in trained.stderr
    assert "30/30" in trained.stderr
    assert "loss=" in trained.stderr
    assert RUN.saved_steps() == [20, 30]
    model = load_trained(SMALL, CPU)
    assert bounds_of(trained.stdout) == lines_of(evaluate.measure(model, synthetic_images))


@pytest.mark.slow
def test_a_run_writes_its_pictures_into_its_folder(run_vae, small):
    trained = run_vae(*small, "--iter_save", 20, "--figures", 1)
    assert trained.returncode == 0, trained.stderr
    folder = Path("checkpoints", NAME)
    pictures = [folder / f"{name}.png" for name in PICTURES]
    assert sorted(folder.glob("*.png")) == pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    lines = trained.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("Visualization")) == [
        f"Visualization saved at {path}" for path in pictures
    ]
    assert not Path("visualizing_result.png").exists()  # only for the assignment's settings
    model = load_trained(SMALL, CPU)
    with seeded(evaluate.SEED, CPU):
        visualize.visualize_samples(model, save_path="expected.png", title=SMALL.title)
    assert Path("expected.png").read_bytes() == (folder / "visualizing_result.png").read_bytes()


@pytest.mark.slow
def test_a_loaded_model_also_has_importance_weighted_bounds(run_vae, small, synthetic_images):
    trained = run_vae(*small)
    picture = (RUN.path / "visualizing_result.png").read_bytes()
    of_training = read_results(RUN, 30)
    loaded = run_vae(*small, "--train", 0)
    assert loaded.returncode == 0, loaded.stderr
    assert bounds_of(loaded.stdout) == bounds_of(trained.stdout)
    assert "Saved to" not in loaded.stdout
    lines = [line for line in loaded.stdout.splitlines() if "IWAE" in line]
    assert all(line.endswith("(synthetic, 100 test images)") for line in lines)
    iwae = [line.split("  (")[0].split(": ") for line in lines]
    assert [name for name, _ in iwae] == [f"Negative IWAE-{k}" for k in (1, 10, 100, 1000)]
    values = [float(value) for _, value in iwae]
    assert values == sorted(values, reverse=True)
    measured = read_results(RUN, 30)
    assert measured == of_training  # the bounds again, and the seconds of training
    assert abs(values[0] - measured.subset.nelbo) < 1
    model, x = load_trained(SMALL, CPU), synthetic_images.subset_bits
    for k, (_, value) in zip((1, 10, 100, 1000), iwae, strict=True):
        assert value == f"{evaluate.negative_iwae(model, x, k):.2f}"
    assert (RUN.path / "visualizing_result.png").read_bytes() == picture
    results = json.loads(RUN.results(30).read_text())
    assert [f"{value:.2f}" for value in results["negative IWAE"].values()] == [v for _, v in iwae]
    assert [*results["negative IWAE"]] == ["1", "10", "100", "1000"]
    of_dimensions = results["KL of each latent dimension"]
    assert len(of_dimensions) == 3
    assert sum(of_dimensions) == pytest.approx(measured.subset.kl, rel=1e-4)


@pytest.mark.slow
def test_runs_are_compared_by_their_folders_only(run_vae, small):
    for options in ((), ("--run", 1), ("--kl_weight", 4)):
        assert run_vae(*small, *options).returncode == 0
    compared = run_vae("--compare", 1, "--data_dir", "nowhere", "--dataset", "mnist")
    assert (compared.returncode, compared.stderr) == (0, "")
    *_, first, second = compared.stdout.splitlines()
    starts = {line.removeprefix("| ").split(" | ")[0] for line in (first, second)}
    assert len(starts) == 2 and sum("kl_weight" in start for start in starts) == 1
    Path("checkpoints").rename("elsewhere")
    nothing = run_vae("--compare", 1)
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("run_vae.py: there are no ")


@pytest.mark.slow
def test_the_report_shows_and_saves_the_bounds_that_training_measured(run_vae, small, monkeypatch):
    calls, bounds = [], evaluate.bounds
    monkeypatch.setattr(
        evaluate, "bounds", lambda *arguments: calls.append(1) or bounds(*arguments)
    )
    finished = run_vae(*small)
    assert finished.returncode == 0
    measured = read_results(RUN, 30)
    assert lines_of(measured) == bounds_of(finished.stdout)
    assert measured.seconds > 0
    assert len(calls) == 2  # once for each set of test images
    again = run_vae(*small, "--resume", 1)
    assert bounds_of(again.stdout) == bounds_of(finished.stdout)
    assert read_results(RUN, 30)[:2] == measured[:2]


@pytest.mark.slow
def test_the_bounds_of_a_model_from_another_program_are_saved(run_vae, small):
    """Its folder holds a single file."""
    RUN.path.mkdir(parents=True)
    torch.save({"state_dict": VAE(nn="tiny", z_dim=3).state_dict()}, RUN.model(30))
    loaded = run_vae(*small, "--train", 0)
    assert loaded.returncode == 0, loaded.stderr
    measured = read_results(RUN, 30)
    assert bounds_of(loaded.stdout) == lines_of(measured)
    assert math.isnan(measured.seconds)  # of training; unknown
    assert not RUN.metrics.exists()


@pytest.mark.slow
def test_every_option_reaches_the_run(run_vae, small, synthetic_images, tmp_path, monkeypatch):
    finished = run_vae(
        *(*small, "--z", 2, "--iter_max", 12, "--iter_save", 5, "--batch_size", 7, "--run", 4),
        *("--lr", "5e-4", "--lr_schedule", "linear", "--kl_weight", "2.5", "--valid", 90),
    )
    assert finished.returncode == 0, finished.stderr
    chosen = Settings("tiny", 2, 7, 5e-4, "linear", 2.5, 12, "synthetic", 90, 4)
    folder = RunFolder(chosen)
    models = [folder.model(step).read_bytes() for step in (5, 10, 12)]
    assert f"Model name: {chosen.name}\n" in finished.stdout

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    train(chosen, synthetic_images.hold_out(90), CPU, iter_save=5)
    assert models == [folder.model(step).read_bytes() for step in (5, 10, 12)]


@pytest.mark.slow
def test_the_report_has_importance_weighted_bounds_on_all_images(run_vae, small, synthetic_images):
    finished = run_vae(*small, "--iwae", 20)
    assert finished.returncode == 0, finished.stderr
    (measured,) = json.loads(RUN.results(30).read_text())[
        "negative IWAE of all test images"
    ].values()
    model, x = load_trained(SMALL, CPU), synthetic_images.test_bits
    each = [evaluate.negative_iwae(model, image, 20) for image in x.split(1)]
    assert measured["bound"] == pytest.approx(mean(each), abs=0.5)
    assert measured["standard error"] == pytest.approx(stdev(each) / math.sqrt(300), rel=0.5)
    assert measured["bits per dimension"] == pytest.approx(measured["bound"] / 784 / math.log(2))
    shown = "{bound:.2f} ± {standard error:.2f}  (synthetic, all 300 test images)"
    assert f"Negative IWAE-20: {shown.format(**measured)}" in finished.stdout


def test_more_validation_images_than_there_are_is_an_error(run_vae, small):
    finished = run_vae(*small, "--valid", 600)
    assert finished.returncode == 2
    assert "--valid" in finished.stderr and "600 training images" in finished.stderr


@pytest.mark.slow
def test_a_longer_run_continues_a_shorter_one(run_vae, small):
    first = run_vae(*small, "--iter_max", 10)
    assert first.returncode == 0, first.stderr
    longer = run_vae(*small, "--resume", 1)
    assert longer.returncode == 0, longer.stderr
    assert "Resuming at step 10\n" in longer.stdout
    assert "model-00010.pt" not in longer.stdout  # it existed
    new = run_vae(*small)
    assert f"checkpoints/{NAME}.1; --resume 1 would" in new.stdout
    models = [Path("checkpoints", name, "model-00030.pt") for name in (NAME, f"{NAME}.1")]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.slow
def test_train_2_trains_and_prints_importance_weighted_bounds(run_vae, small, monkeypatch):
    monkeypatch.setattr(evaluate, "negative_iwae", lambda model, x, iw: float(iw))
    trained = run_vae(*small, "--train", 2)
    assert trained.returncode == 0, trained.stderr
    assert "Saved to" in trained.stdout
    for iw in (1, 10, 100, 1000):
        assert f"\nNegative IWAE-{iw}: {iw}.00  (synthetic, 100 test images)\n" in trained.stdout


@pytest.mark.slow
def test_a_run_with_the_assignments_settings_also_writes_the_assignments_picture(run_vae):
    """The data set and the number of the run do not matter."""
    finished = run_vae("--dataset", "synthetic", "--iter_max", 1, "--run", 3)
    assert finished.returncode == 0, finished.stderr
    name = "visualizing_result.png"
    folder = Path("checkpoints/model=vae_z=10_dataset=synthetic_run=0003")
    for line in (f"Visualization saved at ./{name}", f"Visualization saved at {folder}/{name}"):
        assert line in finished.stdout.splitlines()
    assert Path(name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_the_explorer_is_written_into_the_runs_folder(run_vae, small):
    finished = run_vae(*small, "--nn", "v1", "--iter_max", 2, "--explorer", 1)
    assert finished.returncode == 0, finished.stderr
    path = Path("checkpoints/model=vae_z=03_dataset=synthetic_run=0000/explorer.html")
    assert f"Explorer saved at {path}; open it in a browser" in finished.stdout.splitlines()
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "z = 3, run 0, 2 steps, synthetic digits" in page
