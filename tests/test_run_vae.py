"""The command line, as a user types it."""

import os
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from codebase.errors import explain
from codebase.seeds import seeded
from conftest import SCRIPT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codebase import checkpoint, evaluate, visualize
from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.train import load_trained, train
from run_vae import figure_paths, parse_arguments

CPU = torch.device("cpu")
NAME = "model=vae_nn=tiny_z=03_dataset=synthetic_run=0000"
OPTIONS = ["z", "iter_max", "iter_save", "run", "train", "runs", "jobs", "resume", "batch_size"]
OPTIONS += ["lr", "lr_schedule", "nn", "dataset", "figures", "figure", "device", "data_dir"]


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def failure(finished, status):
    """The one sentence with which the command failed."""
    assert finished.returncode == status, finished.stderr
    *_, sentence = finished.stderr.splitlines()
    assert sentence.startswith("run_vae.py: ")
    assert "Traceback" not in finished.stderr
    return sentence


@pytest.mark.slow
def test_a_run_trains_and_a_loaded_one_prints_the_same(run_vae, small, synthetic_images, tmp_path):
    trained = run_vae(*small, "--iter_save", 20, "--figures", 1)
    assert trained.returncode == 0, trained.stderr
    folder = Path("checkpoints", NAME)
    lines = trained.stdout.splitlines()
    start = lines.index(f"Model name: {NAME}")
    assert "'iter_max': 30," in trained.stdout
    assert lines[start + 1 : start + 5] == [
        "Device: cpu",
        "Data: synthetic, 60000 training and 10000 test images",
        f"Saved to {folder}/model-00020.pt",
        f"Saved to {folder}/model-00030.pt",
    ]
    assert "run 0: 100%" in trained.stderr
    assert "30/30" in trained.stderr
    assert "loss=" in trained.stderr
    assert checkpoint.saved_steps(folder) == [20, 30]
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 7
    assert sorted(line for line in lines if line.startswith("Visualization")) == [
        f"Visualization saved at {path}" for path in pictures
    ]
    assert not Path("visualizing_result.png").exists()  # that is for the assignment's settings
    picture = (folder / "visualizing_result.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

    model = load_trained(Settings(nn="tiny", z=3, dataset="synthetic", iter_max=30), CPU)
    measured = evaluate.measure(model, synthetic_images)
    assert bounds_of(trained.stdout) == [
        f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}        (synthetic, {label})"
        for label, (nelbo, kl, rec) in measured.items()
    ]
    assert list(measured) == ["100 test images", "all 10000 test images"]

    for path in pictures:
        path.unlink()
    loaded = run_vae(*small, "--train", 0, "--figure", "again.png", "--figures", 1)
    assert loaded.returncode == 0, loaded.stderr
    assert bounds_of(loaded.stdout) == bounds_of(trained.stdout)
    assert "Saved to" not in loaded.stdout
    iwae = [line.split(": ") for line in loaded.stdout.splitlines() if "IWAE" in line]
    assert [name for name, _ in iwae] == [f"Negative IWAE-{k}" for k in (1, 10, 100, 1000)]
    values = [float(value) for _, value in iwae]
    assert values == sorted(values, reverse=True)
    assert abs(values[0] - measured["100 test images"].nelbo) < 1
    x = evaluate.subset_images(synthetic_images)
    for k, (_, value) in zip((1, 10, 100, 1000), iwae, strict=True):
        assert value == f"{evaluate.negative_iwae(model, x, k):.4f}"
    assert sorted(folder.glob("*.png")) == pictures
    with seeded(evaluate.SEED, CPU):
        title = f"{NAME}, 30 steps, synthetic"
        visualize.visualize_samples(model, save_path="expected.png", title=title)
    for path in ("again.png", folder / "visualizing_result.png", "expected.png"):
        assert Path(path).read_bytes() == picture


def test_every_setting_reaches_the_run(run_vae, small, synthetic_images, tmp_path, monkeypatch):
    finished = run_vae(
        *(*small, "--z", 2, "--iter_max", 12, "--iter_save", 5, "--batch_size", 7, "--run", 4),
        *("--lr", "5e-4", "--lr_schedule", "linear"),
    )
    assert finished.returncode == 0, finished.stderr
    chosen = Settings("tiny", 2, 7, 5e-4, "linear", "synthetic", run=4, iter_max=12)
    folder = checkpoint.run_folder(chosen)
    models = [checkpoint.model_path(folder, step).read_bytes() for step in (5, 10, 12)]
    assert f"Model name: {folder.name}\n" in finished.stdout

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    train(chosen, synthetic_images, CPU, iter_save=5)
    assert models == [checkpoint.model_path(folder, step).read_bytes() for step in (5, 10, 12)]


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
def test_without_a_network_auto_is_the_synthetic_digits(run_vae, small, synthetic_dir, tmp_path):
    """Even where nothing can be written below the data folder: a file is in the way."""
    shutil.copytree(synthetic_dir / "synthetic", tmp_path / "data" / "synthetic")
    (tmp_path / "data" / "MNIST").write_text("a file")
    finished = run_vae(*small, "--data_dir", "data", "--dataset", "auto")
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
        assert "'dataset': 'synthetic'" not in sentence


def test_help_shows_every_default(run_vae):
    finished = run_vae("--help")
    assert finished.returncode == 0
    words = " ".join(finished.stdout.split())
    for default in ("10", "20000", "10000", "0", "1", "100", "0.001", "constant", "v1", "auto"):
        assert f"(default: {default})" in words
    for option in OPTIONS:
        assert f"--{option} " in words


def test_the_defaults_are_those_of_the_readme():
    assert vars(parse_arguments([])) == {
        **{"z": 10, "iter_max": 20000, "iter_save": 10000, "run": 0, "train": 1, "resume": 0},
        **{"nn": "v1", "batch_size": 100, "lr": 0.001, "lr_schedule": "constant"},
        **{"dataset": "auto", "data_dir": "data", "runs": 1, "jobs": 0},
        **{"figures": 0, "explorer": 0, "device": "auto"},
    }


def test_checkpoints_are_as_far_apart_from_python_as_on_the_command_line():
    assert parse_arguments([]).iter_save == signature(train).parameters["iter_save"].default


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--z", "0"], "--z: must be a whole number from 1"),
        (["--z", "10001"], "--z: must be a whole number from 1 to 10000, not '10001'"),
        (["--z", "ten"], "not 'ten'"),
        (["--z", "9" * 5000], "--z: must be"),
        (["--iter_max", "0"], "--iter_max: must be"),
        (["--iter_max", "1.5"], "--iter_max: must be"),
        (["--iter_save", "-1"], "--iter_save: must be"),
        (["--run", "-1"], "--run: must be a whole number from 0"),
        (["--batch_size", "0"], "--batch_size: must be"),
        (["--train", "yes"], "--train: must be a whole number from 0 to 1"),
        (["--dataset", "cifar"], "--dataset: must be auto or mnist or synthetic, not 'cifar'"),
        (["--nn", "v0"], "--nn: invalid choice: 'v0'"),
        (["--figure", "picture.jpg"], "--figure: must be a file name in .png, .pdf, .svg"),
        (["--figure", "p" * 300 + ".png"], "File name too long"),
        (["--figure", "p" * 300 + "/x.png"], "in a folder that can be written"),
        (["--figure", "nowhere/picture.png"], "in a folder that can be written"),
        (["--device", "gpu"], "--device: this machine has no device 'gpu', only "),
        (["--device", "cuda:99"], "--device: this machine has no device 'cuda:99'"),
        (["--lr", "0"], "--lr: must be a positive number"),
        (["--lr", "nan"], "not 'nan'"),
        (["--lr", "1e999"], "--lr: must be"),
        (["--lr_schedule", "cosine"], "--lr_schedule: invalid choice"),
        (["--runs", "0"], "--runs: must be a whole number from 1"),
        (["--resume", "2"], "--resume: must be a whole number from 0 to 1"),
        (["--runs", "2", "--figure", "my.png"], "--figure: of several runs, --figures 1"),
        (["--iter"], "unrecognized arguments: --iter"),
    ],
)
def test_a_wrong_argument_is_one_sentence(run_vae, tmp_path, arguments, part):
    finished = run_vae(*arguments)
    assert part in failure(finished, 2)
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    option=st.sampled_from(OPTIONS),
    value=st.one_of(st.text(max_size=30), st.integers().map(str), st.floats().map(str)),
)
def test_any_value_is_taken_or_refused_with_a_sentence(capsys, option, value):
    try:
        parsed = getattr(parse_arguments([f"--{option}={value}"]), option)
    except SystemExit as stop:
        assert stop.code == 2
        assert capsys.readouterr().err.startswith(f"run_vae.py: argument --{option}: ")
    else:
        assert parsed == value or 0 <= parsed < float("inf")


@pytest.mark.slow
def test_the_longest_name_of_a_picture_is_written(run_vae, small):
    name = "p" * 251 + ".png"  # 255, the most that file systems take
    finished = run_vae(*small, "--iter_max", 1, "--figure", name)
    assert finished.returncode == 0, finished.stderr
    assert Path(name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_picture_elsewhere_needs_no_right_to_write_here(run_vae, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    tmp_path.chmod(0o500)
    assert parse_arguments(["--train", "0", "--figure", "elsewhere/picture.png"])
    assert "in a folder that can be written" in failure(run_vae("--train", 0), 2)


def test_a_missing_checkpoint_is_named_with_the_steps_that_exist(run_vae, small):
    assert run_vae(*small, "--iter_max", 20).returncode == 0
    sentence = failure(run_vae(*small, "--train", 0), 1)
    assert f"no checkpoint checkpoints/{NAME}/model-00030.pt" in sentence
    assert sentence.endswith("steps saved in its folder: 20; choose one with --iter_max")


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
    assert "put its four uncompressed files there" in sentence
    assert "--dataset synthetic" in sentence


def test_a_folder_that_cannot_be_written_is_one_sentence(run_vae, small, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    assert "checkpoints" in failure(run_vae(*small), 1)


def test_diverged_weights_are_never_a_checkpoint(run_vae, small):
    """A learning rate of 1e30 leaves finite weights after a step, whose bound is not."""
    huge = (*small, "--lr", "1e30", "--iter_save", 1)
    sentence = failure(run_vae(*huge, "--iter_max", 200), 1)
    assert "diverged: at step 1 " in sentence
    assert "last good checkpoint in checkpoints/model" in sentence
    assert ": none; a smaller --lr may help" in sentence
    assert "no checkpoint" in failure(run_vae(*huge, "--iter_max", 1, "--train", 0), 1)


def test_memory_that_runs_out_is_one_sentence():
    for allocate in (lambda: torch.empty(10**14), lambda: bytearray(10**16)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert explain(caught.value).startswith("there is not enough memory")
    assert explain(TypeError("a mistake in the program")) is None


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
def test_surroundings_do_not_matter(start, script, small, synthetic_dir, tmp_path):
    """Another folder, an encoding, a notebook, and bars that nobody watches any more."""
    (tmp_path / "dätä").symlink_to(synthetic_dir)
    surroundings = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://that_is_not_installed"}
    options = (*small, "--data_dir", "dätä", "--figure", "dätä.png")
    reader, writer = os.pipe()
    os.close(reader)
    process = start(script, *options, env=os.environ | surroundings, stderr=writer)
    os.close(writer)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "\nSaved to checkpoints/" in output
    assert output.count("\nNELBO: ") == 2
    assert "Visualization saved at d\\xe4t\\xe4.png\n" in output
    assert (tmp_path / "dätä.png").exists()


def test_samples_of_the_assignments_settings_have_the_name_that_it_gives_them(tmp_path):
    folder, name = tmp_path, "visualizing_result.png"
    assert figure_paths(None, Settings(run=3, iter_max=5), folder) == [f"./{name}", folder / name]
    for other in ({"z": 2}, {"lr": 0.1}, {"dataset": "synthetic"}, {"nn": "v2"}):
        assert figure_paths(None, Settings(**other), folder) == [folder / name]
        assert figure_paths("my.svg", Settings(**other), folder) == ["my.svg", folder / name]
    assert figure_paths("my.svg", Settings(), folder / "absent") == ["my.svg"]


@pytest.mark.slow
def test_the_explorer_is_written_beside_the_model(run_vae, small):
    finished = run_vae(*small, "--nn", "v1", "--iter_max", 2, "--explorer", 1)
    assert finished.returncode == 0, finished.stderr
    path = Path("checkpoints/model=vae_z=03_dataset=synthetic_run=0000/explorer.html")
    assert f"Explorer saved at {path}; open it in a browser" in finished.stdout.splitlines()
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert f'"{path.parent.name}, 2 steps, synthetic"' in page
