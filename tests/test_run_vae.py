"""The command line, as a user types it: training, going on, loading, and what is printed."""

import json
from pathlib import Path

import pytest
import torch

from codebase import evaluate, visualize
from codebase.models.vae import VAE
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


@pytest.fixture
def asked(monkeypatch):
    """The numbers of samples for which an importance-weighted bound is asked, which is not made."""
    asked = []
    monkeypatch.setattr(evaluate, "negative_iwae", lambda model, x, iw: asked.append(iw) or 90.0)
    return asked


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def lines_of(measured):
    """The lines that tell the bounds of a model of the synthetic digits."""
    labels = {evaluate.TEST: "100 test images", evaluate.ALL_TEST: "all 300 test images"}
    return [
        f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}  (synthetic, {labels[name]})"
        for name, (nelbo, kl, rec) in measured.items()
    ]


@pytest.mark.slow
def test_a_run_trains_and_says_what_it_does(run_vae, small, synthetic_images):
    trained = run_vae(*small, "--iter_save", 20)
    assert trained.returncode == 0, trained.stderr
    folder = Path("checkpoints", NAME)
    lines = trained.stdout.splitlines()
    start = lines.index(f"Model name: {NAME}")
    given = "--z 3 --iter_max 30 --iter_save 20 --nn tiny --dataset synthetic"
    assert lines[start - 1] == f"Arguments: {given}"
    assert lines[start + 1 : start + 5] == [
        "Device: cpu",
        "Data: synthetic, 600 training and 300 test images",
        f"Saved to {folder}/model-00020.pt",
        f"Saved to {folder}/model-00030.pt",
    ]
    assert "run 0: 100%" in trained.stderr
    assert "30/30" in trained.stderr
    assert "loss=" in trained.stderr
    assert saved_steps(folder) == [20, 30]
    model = load_trained(SMALL, CPU)
    assert bounds_of(trained.stdout) == lines_of(evaluate.measure(model, synthetic_images))


@pytest.mark.slow
def test_a_run_draws_its_pictures_into_its_folder(run_vae, small):
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
    assert not Path("visualizing_result.png").exists()  # that is for the assignment's settings
    model = load_trained(SMALL, CPU)
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
    nothing = run_vae("--compare", 1)
    assert nothing.returncode == 1
    assert "run_vae.py: there are no runs with bounds" in nothing.stderr


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
def test_a_model_from_elsewhere_is_measured_and_its_bounds_are_kept(run_vae, small, asked):
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
def test_train_2_trains_and_measures_further(run_vae, small, asked):
    trained = run_vae(*small, "--train", 2)
    assert trained.returncode == 0, trained.stderr
    assert "Saved to" in trained.stdout
    assert asked == [1, 10, 100, 1000]
    for iw in asked:
        assert f"\nNegative IWAE-{iw}: 90.0000\n" in trained.stdout


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
