"""The command line, as a user types it."""

import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codebase import checkpoint
from codebase.models.vae import VAE
from run_vae import main, parse_arguments

NAME = "model=vae_z=03_run=0000"
SHORT = ("--z", 3, "--iter_max", 30, "--iter_save", 20)
OPTIONS = ["z", "iter_max", "iter_save", "run", "train", "runs", "jobs", "resume", "lr", "device"]


@pytest.fixture
def folder(tmp_path):
    """The folder of the run that SHORT names."""
    folder = tmp_path / "checkpoints" / NAME
    folder.mkdir(parents=True)
    return folder


def bounds_of(output):
    return [line for line in output.splitlines() if line.startswith("NELBO")]


def failure(finished, status):
    """The one sentence with which the command failed."""
    assert finished.returncode == status, finished.stderr
    (sentence,) = finished.stderr.splitlines()
    assert sentence.startswith("run_vae.py: ")
    return sentence


def test_a_run_trains_reports_and_repeats_its_report(run_vae, synthetic_dir, tmp_path, folder):
    options = (*SHORT, "--dataset", "synthetic", "--data_dir", synthetic_dir)
    trained = run_vae(*options, "--figures", 1)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    for promised in [
        "'iter_max': 30",
        f"Model name: {NAME}",
        "Device: ",
        "Data: synthetic, 60000 training and 10000 test images",
        f"Saved to checkpoints/{NAME}/model-00020.pt",
        f"Saved to checkpoints/{NAME}/model-00030.pt",
        "(synthetic, the assignment's 100 test images)",
        "(synthetic, all 10000 test images)",
    ]:
        assert promised in trained.stdout
    assert "Visualization saved at ./visualizing_result.png" in lines
    assert f"Visualization saved at checkpoints/{NAME}/learning_curve.png" in lines
    assert "30/30" in trained.stderr
    assert "loss=" in trained.stderr
    assert checkpoint.saved_steps(folder) == [20, 30]
    assert len(list(folder.glob("*.png"))) == 5
    picture = (tmp_path / "visualizing_result.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

    loaded = run_vae(*options, "--train", 0, "--figure", "again.png")
    assert loaded.returncode == 0, loaded.stderr
    assert bounds_of(loaded.stdout) == bounds_of(trained.stdout) != []
    assert "Saved to" not in loaded.stdout
    iwae = [line.split(": ") for line in loaded.stdout.splitlines() if "IWAE" in line]
    assert [name for name, _ in iwae] == [f"Negative IWAE-{k}" for k in (1, 10, 100, 1000)]
    values = [float(value) for _, value in iwae]
    assert values == sorted(values, reverse=True)
    assert (tmp_path / "again.png").read_bytes() == picture


def test_an_empty_folder_without_a_network_is_enough(run_vae, synthetic_dir, tmp_path):
    shutil.copytree(synthetic_dir / "synthetic", tmp_path / "data" / "synthetic")
    finished = run_vae(*SHORT)
    assert finished.returncode == 0, finished.stderr
    assert [line[:9] for line in finished.stderr.splitlines()].count("Warning: ") == 1
    assert len(bounds_of(finished.stdout)) == 2
    assert all("(synthetic, " in line for line in bounds_of(finished.stdout))


def test_help_shows_every_default(run_vae):
    finished = run_vae("--help")
    assert finished.returncode == 0
    for default in ("10", "20000", "10000", "0", "1", "auto", "data", "./visualizing_result.png"):
        assert f"(default: {default})" in " ".join(finished.stdout.split())


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
        (["--train", "yes"], "--train: must be a whole number from 0 to 1"),
        (["--dataset", "cifar"], "--dataset: invalid choice: 'cifar'"),
        (["--figure", "picture.jpg"], "--figure: must be a file name ending in .png"),
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
        (["--iter"], "unrecognized arguments: --iter"),
    ],
)
def test_a_wrong_argument_is_one_sentence(run_vae, tmp_path, arguments, part):
    assert part in failure(run_vae(*arguments), 2)
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
        assert option == "device" or 0 <= parsed < float("inf")


def test_a_missing_checkpoint_is_named_with_the_steps_that_exist(run_vae, folder):
    checkpoint.save_model(VAE(z_dim=3), folder / "model-00020.pt")
    sentence = failure(run_vae(*SHORT, "--train", 0), 1)
    assert f"no checkpoint checkpoints/{NAME}/model-00030.pt" in sentence
    assert sentence.endswith("steps saved in its folder: 20; choose one with --iter_max")


@pytest.mark.parametrize("damage", ["other z", "cut"])
def test_an_unusable_checkpoint_is_one_sentence(run_vae, folder, damage):
    path = folder / "model-00030.pt"
    checkpoint.save_model(VAE(z_dim=4 if damage == "other z" else 3), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    assert "model-00030.pt" in failure(run_vae(*SHORT, "--train", 0), 1)


def test_missing_data_is_one_sentence_with_both_ways_out(run_vae):
    finished = run_vae(*SHORT, "--dataset", "mnist")
    sentence = finished.stderr.splitlines()[-1]
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert "could not be downloaded" in sentence
    assert "put its four uncompressed files there" in sentence
    assert "--dataset synthetic" in sentence


def test_a_folder_that_cannot_be_written_is_one_sentence(run_vae, synthetic_dir, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    options = (*SHORT, "--dataset", "synthetic", "--data_dir", synthetic_dir)
    assert "checkpoints" in failure(run_vae(*options), 1)


def test_main_returns_the_exit_status(tmp_path, folder, monkeypatch, synthetic_dir, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codebase.machine.prepare_processor", lambda: None)  # not for all tests
    assert main(["--help"]) == 0
    assert main(["--z", "0"]) == 2
    assert main(["--train", "0"]) == 1
    checkpoint.save_model(VAE(z_dim=3), folder / "model-00030.pt")
    options = [*map(str, SHORT), "--train", "0", "--dataset", "synthetic"]
    assert main([*options, "--data_dir", str(synthetic_dir)]) == 0
    assert torch.is_grad_enabled()
    assert "Negative IWAE-1000" in capsys.readouterr().out
