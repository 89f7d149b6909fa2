"""Runs know the files of code that trained them, and numbers that the model counts itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import copy_project
from training import FOLDER, TINY, interrupt, results_in, settle, train_small

from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder


@pytest.fixture
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


@pytest.fixture
def count_steps(monkeypatch):
    """Have the model count its calls in an attribute, and warm the weight of the KL up by it."""
    plain = VAE.loss

    def loss(model, x):
        model.calls = getattr(model, "calls", 0) + 1
        loss, summaries = plain(model, x)
        return loss + (min(1.0, model.calls / 20) - 1) * summaries["gen/kl_z"], summaries

    monkeypatch.setattr(VAE, "loss", loss)


def test_a_count_of_steps_continues_after_an_interruption(place, count_steps):
    train_small()
    uninterrupted = results_in(FOLDER)
    FOLDER.rename("uninterrupted")
    interrupt(after=7)
    train_small(resume=True)
    assert results_in(FOLDER) == uninterrupted
    assert train_small(TINY._replace(run=1)).calls == TINY.iter_max


def test_a_state_without_sums_and_numbers_is_resumed(place):
    """Version 1.0.0 saved neither."""
    interrupt(after=7)
    path = RunFolder(TINY).state
    state = torch.load(path, weights_only=True)
    del state["files"], state["training"]["numbers"]
    torch.save(state, path)
    train_small(resume=True)
    assert RunFolder(TINY).saved_steps() == [30]


@pytest.mark.slow
def test_a_changed_file_is_not_resumed_and_not_averaged(tmp_path):
    script = copy_project(tmp_path / "project")
    small = ("--dataset", "synthetic", "--nn", "tiny", "--z", "3")

    def run(*arguments):
        command = [sys.executable, script, *small, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert run("--iter_max", 30).returncode == 0
    assert "changed" not in run("--iter_max", 30, "--train", 0).stderr
    (settings,) = tmp_path.glob("checkpoints/*/settings.json")
    names = {"codebase.utils", "codebase.models.vae", "codebase.models.nns.tiny"}
    assert json.loads(settings.read_text())["starts"][0]["files"].keys() == names

    networks = Path(script).parent / "codebase" / "models" / "nns" / "tiny.py"
    networks.write_text(networks.read_text() + "\n# another activation\n")
    resumed = run("--iter_max", 60, "--resume", 1)
    assert resumed.returncode == 1
    assert "codebase.models.nns.tiny changed" in resumed.stderr.splitlines()[-1]
    loaded = run("--iter_max", 30, "--train", 0)
    assert loaded.returncode == 0
    assert "codebase.models.nns.tiny changed" in loaded.stderr

    assert run("--iter_max", 30, "--run", 1).returncode == 0
    table = run("--compare", 1).stdout
    assert [line.split(" | ")[2] for line in table.splitlines() if "z=3" in line] == ["1", "1"]
