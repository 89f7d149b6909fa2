"""The numbers of a run in its folder: metrics.csv, and its settings and results as JSON."""

import json
import math

import pytest
import torch
from training import CPU, RUN, TINY, files_in, interrupt, train_small

from codebase.bounds import Bounds, Measured
from codebase.runs import results
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.settings import VERSION, Settings
from codebase.system.errors import UserError


@pytest.fixture(autouse=True)
def folder(place):
    RUN.path.mkdir(parents=True)


def content(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)  # JSON has no nan


ROWS = [
    results.Row(100, "train", Bounds(612.5, 0.1 + 0.2, 612.2), 0.5),
    results.Row(100, "test", Bounds(1 / 3, 1e-9, 1e300), 0.625),
    results.Row(200, "all test", Bounds(-0.0, 5e-324, 2.0), 12345.678),
]
HEADER = "step,images,NELBO,KL,REC,seconds\n"


def test_the_rows_are_a_table_and_are_read_to_the_last_bit():
    results.write_metrics(RUN, ROWS)
    assert files_in(RUN.path).keys() == {"metrics.csv"}
    assert RUN.metrics.read_text() == HEADER + (
        "100,train,612.5,0.30000000000000004,612.2,0.5\n"
        "100,test,0.3333333333333333,1e-09,1e+300,0.625\n"
        "200,all test,-0.0,5e-324,2.0,12345.678\n"
    )
    assert results.read_metrics(RUN) == ROWS
    results.write_metrics(RUN, [])
    assert results.read_metrics(RUN) == results.read_metrics(RunFolder(TINY._replace(run=1))) == []


def test_a_damaged_file_is_named():
    wrong = "100,test|100,test,1,2,x,4|1e2,test,1,2,3,4|100,test,1,2,3,4,5|100,test,1,2,3,4\n\n"
    rows = [(HEADER + row).encode() for row in wrong.split("|")]
    for content in (b"", b"\xff\x00", b"a" * 1_000_000, *rows):
        RUN.metrics.write_bytes(content)
        with pytest.raises(UserError, match=f"{RUN.metrics} .*delete"):
            results.read_metrics(RUN)


def test_a_folder_has_the_settings_of_its_run_and_where_it_was_trained():
    results.write_settings(RUN, CPU, 0, {})  # a start from which nothing was saved is forgotten
    interrupt(after=7)
    first = content(RUN.settings_file)
    assert Settings(**first["settings"]) == TINY
    (start,) = first["starts"]
    names = ("step", "torch", "program", "device", "threads")
    expected = [0, torch.__version__, VERSION, "cpu", torch.get_num_threads()]
    assert [start[name] for name in names] == expected
    assert start["date"].startswith("20") and start["date"].endswith("+00:00")
    train_small(TINY._replace(iter_max=40), resume=True)
    again = content(RUN.settings_file)
    assert again["settings"] == first["settings"] | {"iter_max": 40}
    assert [each["step"] for each in again["starts"]] == [0, 7]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"settings": 3}', '{"settings": {"x": 1}}'])
def test_all_runs_are_found_except_damaged_ones_and_those_moved_aside(damage):
    assert list(results.all_runs()) == []
    runs, moved = [Settings(z=100, run=123, lr=2e-5), Settings(z=2)], RunFolder(Settings(run=3))
    for settings in (*runs, moved.settings, TINY):
        folder = RunFolder(settings)
        folder.path.mkdir(parents=True, exist_ok=True)
        results.write_settings(folder, CPU, 0, {})
    moved.path.rename(f"{moved.path}.1")
    RUN.settings_file.write_text(damage)
    (CHECKPOINTS / "model=vae_z=10_run=0000").mkdir()  # empty
    (CHECKPOINTS / "model=vae_z=10_run=0000-0009_steps=5.csv").touch()
    assert sorted(folder.settings for folder in results.all_runs()) == sorted(runs)


MEASURED = Measured(
    Bounds(1 / 3, 1.0, 2.0), Bounds(4.0, 1.0, 3.0, 0.5), Bounds(5.0, 1.0, 4.0, 0.7), 0.625
)
KL = [0.25, 0.75]


def test_the_file_of_results_holds_all_measurements():
    """Bounds with other numbers of importance samples stay in the file."""
    results.write_metrics(RUN, ROWS)
    for iwae in ({1: 2.9, 10: 2.0}, {10: 2.5}, {}):
        results.write_results(RUN, 100, MEASURED, KL, iwae)
    for samples, bound in ((50, 3.5), (5000, 3.25)):
        results.write_iwae_of_all(RUN, 100, samples, bound, 0.25, 0.006, 7)
    results.write_results(RUN, 100, MEASURED, KL, {})
    weighted = {"standard error": 0.25, "bits per dimension": 0.006, "active units": 7}
    assert content(RUN.path / "results-00100.json") == {
        "test": {"NELBO": 1 / 3, "KL": 1.0, "REC": 2.0},
        "all test": {"NELBO": 4.0, "KL": 1.0, "REC": 3.0, "standard error": 0.5},
        "valid": {"NELBO": 5.0, "KL": 1.0, "REC": 4.0, "standard error": 0.7},
        "KL of each latent dimension": KL,
        "negative IWAE": {"1": 2.9, "10": 2.5},
        "negative IWAE of all test images": {
            "50": {"bound": 3.5} | weighted,
            "5000": {"bound": 3.25} | weighted,
        },
        "seconds": 0.625,
    }
    found = results.read_results(RUN, 100)
    assert found[1:] == MEASURED[1:] and found.subset[:3] == MEASURED.subset[:3]
    columns = {f"negative IWAE-{samples}, all test images" for samples in (50, 5000)}
    assert results.read_weighted(RUN, 100).keys() == {*columns, "active units"}
    assert results.read_results(RUN, 200) is None and results.read_weighted(RUN, 200) == {}


def test_seconds_that_are_not_known_and_numbers_that_json_lacks_are_left_out():
    results.write_metrics(RUN, [results.Row(30, "test", MEASURED.subset, math.nan)])
    RUN.results(30).write_text('{"negative IWAE": {"1": NaN, "10": 2.5}}')
    results.write_results(RUN, 30, MEASURED._replace(valid=None), KL, {100: 2.0})
    found = content(RUN.results(30))
    assert found["seconds"] is None
    assert "standard error" not in found["test"] and "valid" not in found
    assert found["negative IWAE"] == {"10": 2.5, "100": 2.0}
    del found["seconds"]  # version 1.0.0 had none
    RUN.results(30).write_text(json.dumps(found))
    assert math.isnan(results.read_results(RUN, 30).seconds)


def test_a_damaged_file_of_results_is_ignored_and_replaced():
    results.write_results(RUN, 30, MEASURED, KL, {})
    intact = RUN.results(30).read_bytes()
    damages = [(b'"NELBO"', b'"ELBO"'), (b"4.0", b"[4.0]"), (b'"test": {', b'"test": [], "x": {')]
    for damaged in (b"", b"\xff\x00", b"[]", *(intact.replace(*damage) for damage in damages)):
        RUN.results(30).write_bytes(damaged)
        assert results.read_results(RUN, 30) is None
        results.write_results(RUN, 30, MEASURED, KL, {})
        assert RUN.results(30).read_bytes() == intact
