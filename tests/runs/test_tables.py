"""The tables of several runs, made from the results in their folders."""

import csv
import math
from statistics import mean, stdev

import pytest
import torch

from codebase.bounds import Bounds, Measured
from codebase.runs import results
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.tables import compare, report_runs
from codebase.settings import Settings
from codebase.system.errors import UserError

pytestmark = pytest.mark.usefixtures("place")
VALUES = ["NELBO", "KL", "REC", "NELBO, all test images", "seconds"]
WEIGHTED = ["negative IWAE-5000, all test images", "active units"]
RUNS = [Settings(run=run, iter_max=500, lr=0.002) for run in range(3)]
LAST = {0: (100.0, 20.0, 80.0, 99.0, 61.9), 2: (102.5, 19.0, 83.5, 98.0, 3600.0)}
USUAL = Settings()


def put(settings, nelbo, kl=20.0, rec=80.0, on_all=99.0, seconds=60.0, valid=None, files=None):
    """Write the folder of a run that has ended with these bounds."""
    folder, step = RunFolder(settings), settings.iter_max
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.model(step).touch()
    results.write_settings(folder, torch.device("cpu"), 0, {"files": files or {}})
    held_out = valid and Bounds(valid, 2, valid - 2)
    measured = Measured(Bounds(nelbo, kl, rec), Bounds(on_all, 2, on_all - 2, 0.25), held_out)
    if not math.isnan(seconds):
        results.write_metrics(folder, [results.Row(step, "test", measured.subset, seconds)])
    results.write_results(folder, step, measured, [kl], {})
    return folder


def cells(output):
    """The cells of a Markdown table, without the rule below its header."""
    header, rule, *lines = (line for line in output.splitlines() if line.startswith("|"))
    assert rule == "|" + " --- |" * (header.count("|") - 1)
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in (header, *lines)]


@pytest.fixture
def reported(capsys):
    """The status, the lines on the screen and the lines of the file, without their headers."""

    def reported(runs, failures, *more):
        status = report_runs(runs, failures)
        output, errors = capsys.readouterr()
        header, *lines = cells(output)
        assert header == ["run", *VALUES[:4], *more, "training time", "steps", "data"]
        with open(errors.removeprefix("Saved to ").removesuffix("\n"), newline="") as file:
            names, *saved = csv.reader(file)
        assert names == ["run", *VALUES[:4], *more, "seconds", "steps", "data"]
        return status, lines, saved

    return reported


def test_the_table_averages_the_finished_runs(reported):
    for run, values in LAST.items():
        put(RUNS[run], *values)
    status, lines, saved = reported(RUNS, {1: "no, and with a comma"})
    assert status == 1
    assert lines == [
        ["0", "100.00", "20.00", "80.00", "99.00", "01:01", "500", "mnist"],
        ["1", "failed: no, and with a comma", "", "", "", "", "500", "mnist"],
        ["2", "102.50", "19.00", "83.50", "98.00", "60:00", "500", "mnist"],
        ["average", "101.25", "19.50", "81.75", "98.50", "", "", ""],
        ["standard deviation", "1.77", "0.71", "2.47", "0.71", "", "", ""],
    ]
    assert [(line[0], *map(float, line[1:6]), *line[6:]) for line in saved] == [
        (str(run), *LAST[run], "500", "mnist") for run in (0, 2)
    ]
    [path] = CHECKPOINTS.glob("*.csv")
    assert path.name == "model=vae_z=10_lr=0.002_run=0000-0002_steps=500.csv"


def test_one_run_has_no_deviation_and_none_no_average(reported, capsys):
    put(RUNS[0], 100.0, seconds=math.nan)
    status, lines, _ = reported(RUNS[:1], {})
    assert (status, [line[0] for line in lines]) == (0, ["0", "average"])
    assert lines[0][4:6] == ["99.00", ""]  # seconds that are not known
    [path] = CHECKPOINTS.glob("*.csv")
    assert [line[0] for line in reported(RUNS[1:2], {1: "no"})[1]] == ["1"]
    path.unlink()  # and the file of other runs has another name
    path.mkdir()
    assert report_runs(RUNS[:1], {}) == 1
    output, errors = capsys.readouterr()
    assert "100.00" in output and "Is a directory" in errors


def test_a_run_counts_only_with_results_of_its_last_step_and_if_it_did_not_fail(reported):
    put(RUNS[0], 100.0)
    put(RUNS[1]._replace(iter_max=400), 99.0)
    put(RUNS[2], 100.0).results(500).write_text("damaged")
    status, lines, saved = reported(RUNS, {0: "not now"})  # its results are old
    assert (status, saved) == (1, [])
    assert [line[:2] for line in lines[1:]] == [[run, "failed: no results"] for run in "12"]
    assert lines[0][:2] == ["0", "failed: not now"]


@pytest.fixture
def compared(capsys):
    """The lines on the screen, by the column, and the lines of the file."""

    def compared():
        compare()
        shown = []
        for table in capsys.readouterr().out.split("\n\n")[2::2]:
            header, *lines = cells(table)
            shown.append([dict(zip(header, line, strict=True)) for line in lines])
        with open(CHECKPOINTS / "compare.csv", newline="") as file:
            return shown, [*csv.DictReader(file)]

    return compared


def test_each_settings_has_a_line_with_the_lowest_bound_first(compared):
    best = Settings(lr=0.004, lr_schedule="linear", iter_max=8000)
    other = Settings(z=2, kl_weight=4.0)
    columns = {name: (x, x + 1, x + 3) for x, name in enumerate(VALUES, start=100)}
    for run, values in enumerate(zip(*columns.values(), strict=True)):
        put(USUAL._replace(run=run), *values)
        put(best._replace(run=run), *values[:3], values[3] - 1)
    put(other, 150.0, 30.0, 120.0, 149.0, math.nan)
    [lines], saved = compared()
    assert [[line[key] for key in ("settings", "steps", "runs")] for line in lines] == [
        ["z=10, lr=0.004, lr_schedule=linear", "8000", "3"],
        ["z=10", "20000", "3"],
        ["z=2, kl_weight=4.0", "20000", "1"],
    ]
    for line, settings in zip(saved, (best, USUAL, other), strict=True):
        own = settings._asdict() | {"steps": settings.iter_max}
        assert all(line[key] == str(own[key]) for key in own if key not in ("iter_max", "run"))
    for name, column in columns.items():
        assert lines[1][name] == f"{mean(column):.2f} ± {stdev(column):.2f}"
        written = [float(saved[1][column]) for column in (name, f"{name} deviation")]
        assert written == pytest.approx([mean(column), stdev(column)])
    assert [lines[2][name] for name in VALUES] == ["150.00", "30.00", "120.00", "149.00", ""]
    assert [saved[2][key] for key in ("NELBO", "NELBO deviation", "seconds")] == ["150.0", "", ""]


def test_other_data_have_other_tables_and_validation_images_decide(compared):
    """The second of the settings is better on the test images, but worse where one may look."""
    for lr, test, valid in ((0.001, 99.0, 98.0), (0.002, 98.0, 99.0)):
        put(Settings(lr=lr, valid=10_000), test, on_all=test, valid=valid)
        put(Settings(lr=lr), test, on_all=test)
    put(Settings(dataset="synthetic"), 30.0)
    (usual, held_out, synthetic), saved = compared()
    assert [line["settings"] for line in usual] == ["z=10, lr=0.002", "z=10"]
    assert [line["settings"] for line in held_out] == ["z=10", "z=10, lr=0.002"]
    assert [line["NELBO, validation images"] for line in held_out] == ["98.00", "99.00"]
    assert [line["NELBO"] for line in synthetic] == ["30.00"]
    assert "NELBO, validation images" not in usual[0]
    found = [" ".join((line["dataset"], line["valid"], line["lr"])) for line in saved]
    expected = ["mnist 0 0.002", "mnist 0 0.001", "mnist 10000 0.001", "mnist 10000 0.002"]
    assert found == [*expected, "synthetic 0 0.001"]


def test_importance_weighted_bounds_have_columns_of_their_own(compared, reported):
    for run, bound in enumerate((95.0, 96.0)):
        folder = put(RUNS[run], 100.0)
        results.write_iwae_of_all(folder, 500, 5000, bound, 0.25, 0.175, 9 + run)
    [[line]], [saved] = compared()
    assert [line[name] for name in WEIGHTED] == ["95.50 ± 0.71", "9.50 ± 0.71"]
    assert [saved[name] for name in WEIGHTED] == ["95.5", "9.5"]
    _, lines, rows = reported(RUNS[:2], {}, *WEIGHTED)
    shown = [["95.00", "9.00"], ["96.00", "10.00"], ["95.50", "9.50"], ["0.71", "0.71"]]
    assert [line[5:7] for line in lines] == shown
    assert [row[5:7] for row in rows] == [["95.0", "9.0"], ["96.0", "10.0"]]


def test_only_finished_runs_of_the_same_code_with_an_intact_file_are_averaged(compared, capsys):
    with pytest.raises(UserError, match="no finished runs"):
        compare()
    runs = [USUAL._replace(run=run) for run in range(4)]
    folders = [put(run, 100 + run.run, files={"a": str(run.run // 2)}) for run in runs]
    folders[1].results(20_000).unlink()
    damaged = folders[2].results(20_000)
    damaged.write_text("damaged")
    [lines], _ = compared()
    assert [(line["runs"], line["NELBO"]) for line in lines] == [("1", "100.00"), ("1", "103.00")]
    compare()
    assert str(damaged) in capsys.readouterr().err
