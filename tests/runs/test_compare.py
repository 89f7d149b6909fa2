"""The table of everything that was trained, made from folders that other processes have written."""

import csv
import math
from statistics import mean, stdev

import pytest

from codebase.evaluate import ALL_TEST, TEST
from codebase.runs.compare import COLUMNS, compare, compared
from codebase.runs.folder import CHECKPOINTS, model_path, run_folder
from codebase.runs.metrics import TRAIN, Row, write_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError

BEST, USUAL = Settings(lr=0.004, lr_schedule="linear", iter_max=8000), Settings()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(settings, step, value, seconds=60.0, saved=True):
    """A run that has these bounds after a step, and its model there."""
    folder = run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [Row(step, TRAIN, 1, 1, 1, 1), Row(step, TEST, value, value / 5, 4 * value / 5, seconds)]
    write_metrics(folder, [*rows, Row(step, ALL_TEST, value - 1, 2, 3, seconds + 1)])
    if saved:
        model_path(folder, step).touch()


def test_there_is_a_line_for_each_setting_the_lowest_bound_first():
    for run, value in enumerate((101.0, 100.0, 102.0)):
        put(USUAL._replace(run=run), 20_000, value, 200.0 + run)
        put(BEST._replace(run=run), 8_000, value - 1, 60.0)
    put(Settings(z=2, kl_weight=4.0), 20_000, 150.0, math.nan)
    best, usual, alone = compared()
    assert [line[:3] for line in (best, usual, alone)] == [
        ["z=10, lr=0.004, lr_schedule=linear, iter_max=8000", 8_000, 3],
        ["z=10", 20_000, 3],
        ["z=02, kl_weight=4.0", 20_000, 1],
    ]
    values = (101.0, 100.0, 102.0)
    columns = [values, [v / 5 for v in values], [4 * v / 5 for v in values]]
    columns += [[v - 1 for v in values], [200.0, 201.0, 202.0]]
    expected = [statistic(column) for column in columns for statistic in (mean, stdev)]
    assert usual[3:] == pytest.approx(expected)
    assert alone[3:] == [150.0, "", 30.0, "", 120.0, "", 149.0, "", "", ""]  # nobody took the time


def test_runs_of_one_setting_with_other_steps_have_lines_of_their_own():
    put(USUAL, 20_000, 100.0)
    put(USUAL._replace(run=1), 10_000, 105.0)
    assert [line[:3] for line in compared()] == [["z=10", 20_000, 1], ["z=10", 10_000, 1]]


def test_models_need_not_be_there_and_times_need_not_be_known():
    """As of runs of another machine, of which only the numbers were brought."""
    for run in range(3):
        put(USUAL._replace(run=run), 20_000, 100.0, seconds=math.nan if run else 60.0, saved=False)
    assert compared()[0][1:3] == [20_000, 3]
    assert compared()[0][11:] == [60.0, ""]


def test_a_damaged_file_is_told_and_costs_no_other_run_its_place(capsys):
    put(USUAL, 20_000, 100.0)
    put(USUAL._replace(run=1), 20_000, 102.0)
    damaged = run_folder(USUAL._replace(run=1)) / "metrics.csv"
    damaged.write_text("damaged\n1,2\n")
    assert [line[2:4] for line in compared()] == [[1, 100.0]]
    assert f"{damaged} is damaged" in capsys.readouterr().err


def test_it_is_printed_as_markdown_and_saved_as_numbers(capsys):
    for run, value in enumerate((101.0, 100.0)):
        put(USUAL._replace(run=run), 20_000, value)
    put(BEST, 8_000, 99.0)
    compare()
    title, empty, header, rule, *lines = capsys.readouterr().out.splitlines()
    assert title.endswith("also in checkpoints/compare.csv") and empty == ""
    names = ["settings", "steps", "runs", "NELBO", "KL", "REC", "NELBO, all test images", "seconds"]
    assert header == f"| {' | '.join(names)} |" and rule == "|" + " --- |" * 8
    assert lines[0].split(" | ")[3:] == ["99.00", "19.80", "79.20", "98.00", "60.00 |"]
    assert lines[1].split(" | ")[3] == "100.50 ± 0.71"
    with open(CHECKPOINTS / "compare.csv", newline="") as file:
        names, *saved = csv.reader(file)
    assert names == [*COLUMNS]
    assert [*map(float, filter(None, saved[1][1:]))] == pytest.approx([*compared()[1][1:]])


def test_where_nothing_was_trained_a_sentence_says_so():
    with pytest.raises(UserError, match="there are no runs with bounds in checkpoints; train some"):
        compare()
