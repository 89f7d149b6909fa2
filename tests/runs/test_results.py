"""The numbers of a run in its folder: metrics.csv, and its settings and results as JSON."""

import json
import math
from pathlib import Path

import pytest
import torch
from training import CPU, FOLDER, RUN, TINY, files_in, interrupt, settle, train_small

from codebase.bounds import Bounds, Measured
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.results import (
    Row,
    all_runs,
    read_metrics,
    read_results,
    write_iwae_of_all,
    write_metrics,
    write_results,
    write_settings,
)
from codebase.settings import VERSION, Settings
from codebase.system.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)
    FOLDER.mkdir(parents=True)


# The rows.

ROWS = [
    Row(100, "train", Bounds(612.5, 0.1 + 0.2, 612.2), 0.5),
    Row(100, "test", Bounds(1 / 3, 1e-9, 1e300), 0.625),
    Row(100, "all test", Bounds(300.0, 20.0, 280.0), 0.75),
    Row(200, "train", Bounds(-0.0, 5e-324, 2.0), 12345.678),
]
HEADER = "step,images,NELBO,KL,REC,seconds\n"


def test_the_file_is_a_table_with_a_header():
    write_metrics(RUN, ROWS)
    assert files_in(FOLDER).keys() == {"metrics.csv"}
    assert RUN.metrics.read_text() == HEADER + (
        "100,train,612.5,0.30000000000000004,612.2,0.5\n"
        "100,test,0.3333333333333333,1e-09,1e+300,0.625\n"
        "100,all test,300.0,20.0,280.0,0.75\n"
        "200,train,-0.0,5e-324,2.0,12345.678\n"
    )


def test_rows_are_read_as_they_were_written_to_the_last_bit():
    for rows in (ROWS, ROWS[:1], []):
        write_metrics(RUN, rows)
        assert read_metrics(RUN) == rows


def test_without_a_file_there_are_no_rows():
    assert read_metrics(RUN) == []
    assert read_metrics(RunFolder(TINY._replace(run=1))) == []


WRONG = b"100|100,test|100,test,1,2|100,test,1,2,x,4|1e2,test,1,2,3,4|,test,1,2,3,4"
WRONG += b'|100,test,1,2,3,4,5|100,test,1,2,3,4\n\n|100,"test,1,2,3,4\n|100,test,1,2,3,' + bytes(9)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00", b"a" * 1_000_000, *(HEADER.encode() + x for x in WRONG.split(b"|"))],
)
def test_a_damaged_file_is_named_and_left_unchanged(content):
    RUN.metrics.write_bytes(content)
    with pytest.raises(UserError, match=f"^{RUN.metrics} is damaged"):
        read_metrics(RUN)
    assert RUN.metrics.read_bytes() == content


def test_a_file_that_cannot_be_read_raises_an_os_error():
    RUN.metrics.mkdir()
    with pytest.raises(IsADirectoryError):
        read_metrics(RUN)


# The settings.


def content(path=RUN.settings_file):
    return json.loads(path.read_text())


def test_a_folder_has_the_settings_of_its_run_and_where_it_was_trained():
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
    train_small()  # a new run, which moves the earlier one aside
    assert [each["step"] for each in content()["starts"]] == [0]
    assert content(Path(f"{FOLDER}.1", "settings.json")) == again


def test_a_start_from_which_nothing_was_saved_is_forgotten(monkeypatch):
    for threads in (3, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        write_settings(RUN, CPU, 0, {})
    (start,) = content()["starts"]
    assert (start["step"], start["threads"]) == (0, 5)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"settings": 3}', '{"settings": {"x": 1}}'])
def test_a_damaged_file_of_settings_hides_only_its_own_run(damage):
    for run in (0, 1):
        train_small(TINY._replace(run=run))
    RUN.settings_file.write_text(damage)
    assert [folder.settings.run for folder in all_runs()] == [1]


def test_all_runs_are_found_and_those_moved_aside_are_not():
    assert list(all_runs()) == []
    runs = {
        Settings(z=z, run=run, lr=lr) for z in (2, 100) for run in (0, 12345) for lr in (0.1, 2e-05)
    }
    for settings in runs:
        RunFolder(settings).path.mkdir(parents=True)
        write_settings(RunFolder(settings), CPU, 0, {})
    (CHECKPOINTS / "model=vae_z=10_run=0000").mkdir()  # empty
    (CHECKPOINTS / "model=vae_z=10_run=0000-0009_steps=5.csv").touch()
    moved = RunFolder(Settings(run=3))
    moved.path.mkdir()
    write_settings(moved, CPU, 0, {})
    moved.path.rename(f"{moved.path}.1")
    found = list(all_runs())
    assert {folder.settings for folder in found} == runs
    assert all(folder.path == RunFolder(folder.settings).path for folder in found)
    assert len(found) == len(runs)


# The results.

MEASURED = Measured(Bounds(1 / 3, 1.0, 2.0), Bounds(4.0, 1.0, 3.0))
KL = [0.25, 0.75]


def test_the_file_of_results_holds_all_measurements():
    """Bounds with other numbers of importance samples stay in the file."""
    for iwae in ({1: 2.9, 10: 2.0}, {10: 2.5}, {}):
        write_results(RUN, 30, MEASURED, KL, iwae)
    assert content(FOLDER / "results-00030.json") == {
        "test": {"NELBO": 1 / 3, "KL": 1.0, "REC": 2.0},
        "all test": {"NELBO": 4.0, "KL": 1.0, "REC": 3.0},
        "KL of each latent dimension": KL,
        "negative IWAE": {"1": 2.9, "10": 2.5},
        "seconds": None,
    }


def test_bounds_on_all_images_have_their_standard_error_and_stay_in_the_file():
    measured = Measured(
        Bounds(3.0, 1.0, 2.0), Bounds(4.0, 1.0, 3.0, 0.5), Bounds(5.0, 1.0, 4.0, 0.7)
    )
    write_results(RUN, 30, measured, KL, {})
    for samples, bound in ((50, 3.5), (5000, 3.25)):
        write_iwae_of_all(RUN, 30, samples, bound, 0.25, bound / 543.4, 7)
    write_results(RUN, 30, measured, KL, {})
    found = content(RUN.results(30))
    assert found["all test"]["standard error"] == 0.5
    assert found["valid"] == {"NELBO": 5.0, "KL": 1.0, "REC": 4.0, "standard error": 0.7}
    assert found["negative IWAE of all test images"].keys() == {"50", "5000"}
    assert found["negative IWAE of all test images"]["5000"] == {
        "bound": 3.25,
        "standard error": 0.25,
        "bits per dimension": 3.25 / 543.4,
        "active units": 7,
    }
    assert read_results(RUN, 30)[:3] == measured[:3]


def test_the_seconds_of_training_come_from_the_rows():
    write_results(RUN, 100, MEASURED, KL, {})
    unknown = read_results(RUN, 100)
    assert unknown[:2] == MEASURED[:2] and math.isnan(unknown.seconds)
    write_metrics(RUN, ROWS)
    write_results(RUN, 100, MEASURED, KL, {})
    assert read_results(RUN, 100) == MEASURED._replace(seconds=0.625)
    assert read_results(RUN, 200) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, b""),
        (None, b"\xff\x00"),
        (None, b"[]"),
        (b'"NELBO"', b'"ELBO"'),
        (b"4.0", b"[4.0]"),
        (b"4.0", b'"four"'),
        (b'"test": {', b'"test": [], "x": {'),
    ],
)
def test_a_damaged_file_of_results_is_ignored_and_replaced(old, new):
    write_results(RUN, 30, MEASURED, KL, {})
    path = RUN.results(30)
    intact = path.read_bytes()
    path.write_bytes(intact.replace(old, new) if old else new)
    assert read_results(RUN, 30) is None
    write_results(RUN, 30, MEASURED, KL, {})
    assert path.read_bytes() == intact


def test_results_of_version_1_0_0_which_have_no_seconds_are_read():
    write_results(RUN, 30, Measured(Bounds(3.0, 1.0, 2.0), Bounds(6.0, 2.0, 4.0)), [1.0], {})
    content = json.loads(RUN.results(30).read_text())
    del content["seconds"]
    RUN.results(30).write_text(json.dumps(content))
    measured = read_results(RUN, 30)
    assert measured.all == Bounds(6.0, 2.0, 4.0) and math.isnan(measured.seconds)


def test_numbers_that_json_lacks_are_left_out():
    bounds = Bounds(3.0, 1.0, 2.0)
    write_metrics(RUN, [Row(30, "test", bounds, math.nan)])
    RUN.results(30).write_text('{"negative IWAE": {"1": NaN, "10": 2.5}}')
    write_results(RUN, 30, Measured(bounds, bounds), [1.0], {100: 2.0})
    content = json.loads(RUN.results(30).read_text(), parse_constant=pytest.fail)
    assert content["seconds"] is None
    assert "standard error" not in content["all test"]
    assert content["negative IWAE"] == {"10": 2.5, "100": 2.0}
