"""The tables of several runs, made from the results in their folders."""

import csv
import math
from statistics import mean, stdev

import pytest
import torch

from codebase.evaluate import Bounds, Measured
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.results import Row, write_metrics, write_results, write_settings
from codebase.runs.tables import compare, report_runs
from codebase.settings import Settings
from codebase.system.errors import UserError

VALUES = ["NELBO", "KL", "REC", "NELBO, all test images", "seconds"]
RUNS = [Settings(run=run, iter_max=500, lr=0.002) for run in range(3)]
LAST = {0: (100.0, 20.0, 80.0, 99.0, 61.9), 2: (102.5, 19.0, 83.5, 98.0, 3600.0)}
BEST, USUAL = Settings(lr=0.004, lr_schedule="linear", iter_max=8000), Settings()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(settings, nelbo, kl, rec, on_all, seconds=60.0, step=None):
    """Write the folder of a run that has ended with these bounds."""
    folder, step = RunFolder(settings), step or settings.iter_max
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.model(step).touch()
    write_settings(folder, torch.device("cpu"), 0, {})
    measured = Measured(Bounds(nelbo, kl, rec), Bounds(on_all, 2, on_all - 2))
    if not math.isnan(seconds):
        write_metrics(folder, [Row(step, "test", measured.subset, seconds)])
    write_results(folder, step, measured, [kl], {})


def cells(output):
    """The cells of a Markdown table, without the rule below its header."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    assert lines[1] == "|" + " --- |" * (lines[0].count("|") - 1)
    return [
        line.removeprefix("| ").removesuffix(" |").split(" | ")
        for line in lines
        if line != lines[1]
    ]


# The table of --runs.


@pytest.fixture
def two_runs():
    """The first and the last of RUNS have results."""
    for run, values in LAST.items():
        put(RUNS[run], *values)


@pytest.fixture
def reported(capsys):
    """The status, the lines on the screen and the lines of the file, without their headers."""

    def reported(runs, failures):
        status = report_runs(runs, failures)
        output, errors = capsys.readouterr()
        path = errors.removeprefix("Saved to ").removesuffix("\n")
        header, *lines = cells(output)
        assert header == ["run", *VALUES[:4], "training time", "steps", "data"]
        with open(path, newline="") as file:
            names, *saved = csv.reader(file)
        assert names == ["run", *VALUES, "steps", "data"]
        return status, lines, saved

    return reported


def test_the_table_averages_the_finished_runs(two_runs, reported):
    status, lines, saved = reported(RUNS, {1: "no, and with a comma"})
    assert status == 1
    assert lines == [
        ["0", "100.0000", "20.0000", "80.0000", "99.0000", "01:01", "500", "mnist"],
        ["1", "failed: no, and with a comma", "", "", "", "", "500", "mnist"],
        ["2", "102.5000", "19.0000", "83.5000", "98.0000", "60:00", "500", "mnist"],
        ["average", "101.2500", "19.5000", "81.7500", "98.5000", "", "", ""],
        ["standard deviation", "1.7678", "0.7071", "2.4749", "0.7071", "", "", ""],
    ]
    assert [(line[0], *map(float, line[1:6]), *line[6:]) for line in saved] == [
        (str(run), *LAST[run], "500", "mnist") for run in (0, 2)
    ]
    [path] = CHECKPOINTS.glob("*.csv")
    assert path.name == "model=vae_z=10_lr=0.002_run=0000-0002_steps=500.csv"


def test_one_run_has_no_deviation_and_none_no_average(two_runs, reported):
    assert [line[0] for line in reported(RUNS[:1], {})[1]] == ["0", "average"]
    assert [line[0] for line in reported(RUNS[1:2], {1: "no"})[1]] == ["1"]
    assert reported(RUNS[:1], {})[0] == 0


def test_a_run_counts_only_with_results_of_its_last_step_and_if_it_did_not_fail(two_runs, reported):
    put(RUNS[1], 99, 20, 79, 98, step=400)
    status, lines, _ = reported(RUNS, {})
    assert (status, lines[1][0]) == (1, "1")
    assert lines[1][1].startswith("failed: no results")
    assert reported(RUNS, {0: "no"})[1][0][:2] == ["0", "failed: no"]  # its results are old
    RunFolder(RUNS[0]).results(500).write_text("damaged")
    _, lines, saved = reported(RUNS, {1: "its own words"})
    assert [line[1].startswith("failed: ") for line in lines[:3]] == [True, True, False]
    assert lines[1][1] == "failed: its own words"
    assert [line[0] for line in saved] == ["2"]


def test_seconds_that_are_not_known_are_left_out(two_runs, reported):
    put(RUNS[1], 99, 20, 79, 98, math.nan)
    assert reported(RUNS, {})[1][1][4:6] == ["98.0000", ""]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"a" * 1_000_000, b'"', b"1\n2,3\n"])
def test_an_earlier_file_of_the_table_is_replaced(two_runs, reported, content):
    reported(RUNS, {})
    [path] = CHECKPOINTS.glob("*.csv")
    expected = path.read_bytes()
    path.write_bytes(content)
    reported(RUNS, {})
    assert path.read_bytes() == expected
    reported(RUNS[:2], {})
    assert len([*CHECKPOINTS.glob("*.csv")]) == 2  # other runs have a file of their own


# The table of --compare.


@pytest.fixture
def compared(capsys):
    """The lines on the screen and the lines of the file, without their headers."""

    def compared():
        compare()
        header, *lines = cells(capsys.readouterr().out)
        assert header == ["settings", "steps", "runs", *VALUES]
        with open(CHECKPOINTS / "compare.csv", newline="") as file:
            names, *saved = csv.reader(file)
        assert names == header[:3] + [n for v in VALUES for n in (v, f"{v} deviation")]
        return lines, saved

    return compared


def test_each_settings_has_a_line_with_the_lowest_bound_first(compared):
    values = (101.0, 100.0, 102.0)
    for run, x in enumerate(values):
        put(USUAL._replace(run=run), x, x / 5, 4 * x / 5, x - 1, 200.0 + run)
        put(BEST._replace(run=run), x - 1, x / 5, 4 * x / 5, x - 2)
    put(Settings(z=2, kl_weight=4.0), 150.0, 30.0, 120.0, 149.0, math.nan)
    lines, saved = compared()
    starts = [
        ["z=10, lr=0.004, lr_schedule=linear, iter_max=8000", "8000", "3"],
        ["z=10", "20000", "3"],
        ["z=2, kl_weight=4.0", "20000", "1"],
    ]
    assert [line[:3] for line in lines] == [line[:3] for line in saved] == starts
    columns = [values, [x / 5 for x in values], [4 * x / 5 for x in values]]
    columns += [[x - 1 for x in values], [200.0, 201.0, 202.0]]
    pairs = [(mean(column), stdev(column)) for column in columns]
    assert lines[1][3:] == [f"{average:.2f} ± {deviation:.2f}" for average, deviation in pairs]
    assert [*map(float, saved[1][3:])] == pytest.approx([x for pair in pairs for x in pair])
    assert lines[2][3:] == ["150.00", "30.00", "120.00", "149.00", ""]
    assert saved[2][3:] == ["150.0", "", "30.0", "", "120.0", "", "149.0", "", "", ""]


def test_runs_of_one_settings_with_other_steps_have_lines_of_their_own(compared):
    """Each run counts with the last model that has results."""
    put(USUAL, 105.0, 20, 80, 104.0, step=10_000)
    put(USUAL, 100.0, 20, 80, 99.0)
    put(USUAL._replace(run=1), 105.0, 20, 80, 104.0, step=10_000)
    RunFolder(USUAL._replace(run=1)).model(20_000).touch()
    assert [line[:3] for line in compared()[0]] == [["z=10", "20000", "1"], ["z=10", "10000", "1"]]


def test_a_damaged_file_removes_only_its_own_run(compared):
    for run in (0, 1):
        put(USUAL._replace(run=run), 100.0 + run, 20, 80, 99)
    RunFolder(USUAL._replace(run=1)).results(20_000).write_text("damaged")
    assert [line[2:4] for line in compared()[0]] == [["1", "100.00"]]


def test_without_runs_there_is_an_error():
    with pytest.raises(UserError, match="no finished runs in checkpoints"):
        compare()
