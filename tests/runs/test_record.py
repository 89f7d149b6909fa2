"""What a run was and what its models gave, as programs read it from the folder."""

import json
from pathlib import Path

import pytest
import torch
from training import CPU, FOLDER, TINY, interrupt, settle, train_small

from codebase.evaluate import Bounds
from codebase.runs.folder import CHECKPOINTS, run_folder
from codebase.runs.record import (
    all_runs,
    results_path,
    settings_of,
    settings_path,
    write_results,
    write_settings,
)
from codebase.settings import VERSION, Settings


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


def content(path=None):
    return json.loads((path or settings_path(FOLDER)).read_text())


def test_a_folder_says_what_its_run_is_and_where_it_was_trained():
    interrupt(after=7)
    first = content()
    assert Settings(**first["settings"]) == TINY
    (start,) = first["starts"]
    assert start["step"] == 0
    assert start["torch"] == torch.__version__
    assert start["program"] == VERSION
    assert (start["device"], start["threads"]) == ("cpu", torch.get_num_threads())
    assert start["date"].startswith("20") and start["date"].endswith("+00:00")
    train_small(TINY._replace(iter_max=40), resume=True)
    again = content()
    assert again["settings"] == first["settings"] | {"iter_max": 40}
    assert [each["step"] for each in again["starts"]] == [0, 7]
    train_small()  # anew, which moves the earlier one aside
    assert [each["step"] for each in content()["starts"]] == [0]
    assert content(settings_path(Path(f"{FOLDER}.1"))) == again


def test_a_start_is_told_of_the_run_that_began_with_it(monkeypatch):
    """And not one from which nothing was saved, since the run has begun anew then."""
    FOLDER.mkdir(parents=True)
    for threads in (3, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        write_settings(FOLDER, TINY, CPU, 0)
    (start,) = content()["starts"]
    assert (start["step"], start["threads"]) == (0, 5)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"settings": 3}', '{"settings": {"x": 1}}'])
def test_a_folder_without_its_file_is_what_its_name_says(damage):
    settings = TINY._replace(lr=0.004, kl_weight=4.0, run=12)
    run_folder(settings).mkdir(parents=True)
    as_named = settings._replace(iter_max=Settings().iter_max)
    assert settings_of(run_folder(settings)) == as_named
    settings_path(run_folder(settings)).write_text(damage)
    assert settings_of(run_folder(settings)) == as_named


@pytest.mark.parametrize(("run", "new"), [(0, 77), (77, 0)])
def test_a_folder_that_was_renamed_is_what_its_new_name_says(run, new):
    settings = TINY._replace(run=run)
    train_small(settings)
    other = run_folder(TINY._replace(run=new))
    run_folder(settings).rename(other)
    assert settings_of(other).run == new
    other.rename(f"{other}.1")
    assert settings_of(Path(f"{other}.1")) is None


def test_all_runs_are_found_and_nothing_else():
    assert list(all_runs()) == []
    runs = {
        Settings(z=z, run=run, lr=lr) for z in (2, 100) for run in (0, 12345) for lr in (0.1, 2e-05)
    }
    for settings in runs:
        run_folder(settings).mkdir(parents=True)
    for name in (
        "model=vae_z=10_run=0000.1",
        ".model=vae_z=10_run=0000.lock",
        "model=vae_z=x_run=0",
    ):
        (CHECKPOINTS / name).mkdir()
    for name in ("model=gmvae_z=10_run=0000", "model=vae_z=10_run=0", "model=vae_new=1_run=0000"):
        (CHECKPOINTS / name).mkdir()
    (CHECKPOINTS / "model=vae_z=10_run=0000-0009_steps=5.csv").touch()
    found = list(all_runs())
    assert {settings for _, settings in found} == runs
    assert all(folder == run_folder(settings) for folder, settings in found)
    assert len(found) == len(runs)


def test_results_of_a_model_are_kept_until_it_is_another():
    path = results_path(FOLDER, 30)
    assert path.name == "results-00030.json"
    FOLDER.mkdir(parents=True)
    bounds = {"test": Bounds(3.0, 1.0, 2.0), "all test": Bounds(4.0, 1.0, 3.0)}
    write_results(FOLDER, 30, bounds, [0.25, 0.75], {1: 2.9, 10: 2.5})
    expected = {"test": {"NELBO": 3.0, "KL": 1.0, "REC": 2.0}}
    expected |= {"all test": {"NELBO": 4.0, "KL": 1.0, "REC": 3.0}}
    expected |= {"KL of each latent dimension": [0.25, 0.75]}
    assert content(path) == expected | {"negative IWAE": {"1": 2.9, "10": 2.5}}
    write_results(FOLDER, 30, bounds, [0.25, 0.75], {})
    assert content(path) == expected | {"negative IWAE": {"1": 2.9, "10": 2.5}}
    rounded = {"test": Bounds(3.000001, 1.0, 2.000001), "all test": Bounds(4.0, 1.0, 3.0)}
    write_results(FOLDER, 30, rounded, [0.25, 0.75], {})
    assert content(path)["negative IWAE"] == {"1": 2.9, "10": 2.5}
    other = {"test": Bounds(3.1, 1.0, 2.1), "all test": Bounds(4.0, 1.0, 3.0)}
    write_results(FOLDER, 30, other, [0.5, 0.5], {100: 2.4})
    assert content(path)["negative IWAE"] == {"100": 2.4}
