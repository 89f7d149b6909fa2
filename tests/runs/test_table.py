"""The table of several runs, made from what is in their folders."""

import csv
import math

import numpy as np
import pytest

from codebase.evaluate import ALL_TEST, TEST
from codebase.runs.folder import run_folder
from codebase.runs.metrics import TRAIN, Row, write_metrics
from codebase.runs.table import COLUMNS, make_table, print_table, save_table
from codebase.settings import Settings

RUNS = [Settings(run=run, iter_max=500, lr=0.002) for run in range(3)]
LAST = {0: (100.0, 20.0, 80.0, 99.0, 61.9), 2: (102.5, 19.0, 83.5, 98.0, 3600.0)}


@pytest.fixture(autouse=True)
def two_runs(tmp_path, monkeypatch):
    """Folders of the first run and the last, which are finished; that of the other is empty."""
    monkeypatch.chdir(tmp_path)
    for settings in RUNS:
        run_folder(settings).mkdir(parents=True)
    for run, values in LAST.items():
        put_rows(RUNS[run], *values)


def put_rows(settings, nelbo, kl, rec, on_all, seconds, step=500):
    """The rows of a run whose bounds after `step` steps are these."""
    earlier = [Row(step - 100, name, 500, 300, 200, 1) for name in (TRAIN, TEST, ALL_TEST)]
    last = [
        Row(step, TRAIN, 1, 1, 1, seconds),
        Row(step, TEST, nelbo, kl, rec, seconds),
        Row(step, ALL_TEST, on_all, 2, 2, seconds + 100),
    ]
    write_metrics(run_folder(settings), earlier + last)


def test_the_table_averages_the_finished_runs():
    table = make_table(RUNS, {1: "no"})
    assert table[:3] == [
        ["0", "100.0000", "20.0000", "80.0000", "99.0000", "01:01", "500", "mnist"],
        ["1", "failed: no", "", "", "", "", "500", "mnist"],
        ["2", "102.5000", "19.0000", "83.5000", "98.0000", "60:00", "500", "mnist"],
    ]
    finished = np.array([values[:4] for values in LAST.values()])
    for line, name, values in [
        (table[3], "average", finished.mean(0)),
        (table[4], "standard deviation", finished.std(0, ddof=1)),
    ]:
        assert line == [name, *(f"{value:.4f}" for value in values), "", "", ""]
    assert {len(line) for line in table} == {len(COLUMNS)}
    assert len(table) == 5


def test_there_is_no_statistic_of_too_few_runs():
    assert [line[0] for line in make_table(RUNS[:1], {})] == ["0", "average"]
    assert [line[0] for line in make_table(RUNS[1:2], {1: "no"})] == ["1"]


def test_only_bounds_at_the_end_of_a_run_are_its_own():
    put_rows(RUNS[1], 99, 20, 79, 98, 60, step=400)
    reason = "failed: no bounds in its folder"
    assert make_table(RUNS, {})[1] == ["1", reason, "", "", "", "", "500", "mnist"]
    # What was there before a run failed is not what the run has given.
    assert make_table(RUNS, {0: "no"})[0][:2] == ["0", "failed: no"]
    shorter = [settings._replace(iter_max=400) for settings in RUNS]
    assert [line[1] for line in make_table(shorter, {})[:3]] == ["500.0000", "99.0000", "500.0000"]


def test_a_time_that_nobody_has_measured_is_left_out():
    put_rows(RUNS[1], 99, 20, 79, 98, math.nan)
    assert make_table(RUNS, {})[1][4:6] == ["98.0000", ""]


def test_a_damaged_file_costs_no_other_run_its_line():
    (run_folder(RUNS[1]) / "metrics.csv").write_text("damaged\n1,2\n")
    table = make_table(RUNS, {})
    path = run_folder(RUNS[1]) / "metrics.csv"
    assert table[1][1] == f"failed: {path} is damaged; delete it to go on without it"
    assert make_table(RUNS, {1: "its own words"})[1][1] == "failed: its own words"
    assert [line[0] for line in table] == ["0", "1", "2", "average", "standard deviation"]


def test_the_file_says_what_was_run_and_holds_the_numbers_of_what_has_finished():
    path = save_table(RUNS, {1: "no, and with a comma"})
    assert str(path) == "checkpoints/model=vae_z=10_lr=0.002_run=0000-0002_steps=500.csv"
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == [*COLUMNS[:5], "seconds", "steps", "data"]
    assert [line[0] for line in lines] == ["0", "2"]
    for line, run in zip(lines, (0, 2), strict=True):
        assert [*map(float, line[1:6])] == [*LAST[run]]
        assert line[6:] == ["500", "mnist"]
    longer = [settings._replace(iter_max=1000) for settings in RUNS]
    assert len({path, save_table(RUNS[:2], {}), save_table(longer, {})}) == 3


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"a" * 1_000_000, b'"', b"1\n2,3\n"])
def test_an_earlier_table_is_replaced_whatever_is_in_it(content):
    path = save_table(RUNS, {})
    expected = path.read_bytes()
    path.write_bytes(content)
    assert save_table(RUNS, {}) == path
    assert path.read_bytes() == expected


def test_on_the_screen_the_table_is_markdown(capsys):
    table = make_table(RUNS, {1: "no"})
    print_table(table)
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert rule == "|" + " --- |" * len(COLUMNS)
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in [header, *lines]]
    assert cells == [[*COLUMNS], *table]
