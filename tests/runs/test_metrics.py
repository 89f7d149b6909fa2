"""A run's numbers: how they are written and read, and who may change them."""

import math
import os
from contextlib import nullcontext

import pytest
from training import hold

from codebase.evaluate import ALL_TEST, TEST, Bounds
from codebase.runs.folder import locked
from codebase.runs.metrics import (
    METRICS,
    TRAIN,
    Row,
    bounds_after,
    last_bounds,
    read_metrics,
    write_bounds,
    write_metrics,
)
from codebase.system.errors import UserError

ROWS = [
    Row(100, TRAIN, 612.5, 0.1 + 0.2, 612.2, 0.5),
    Row(100, TEST, 1 / 3, 1e-9, 1e300, 0.625),
    Row(100, ALL_TEST, 300.0, 20.0, 280.0, 0.75),
    Row(200, TRAIN, -0.0, 5e-324, 2.0, 12345.678),
    Row(200, TEST, 200.0, 20.0, 180.0, 99.0),
    Row(200, ALL_TEST, 201.0, 21.0, 180.0, 99.5),
]


def test_the_file_is_a_table_with_a_header(tmp_path):
    write_metrics(tmp_path, ROWS)
    assert os.listdir(tmp_path) == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,images,NELBO,KL,REC,seconds\n"
        "100,train,612.5,0.30000000000000004,612.2,0.5\n"
        "100,test,0.3333333333333333,1e-09,1e+300,0.625\n"
        "100,all test,300.0,20.0,280.0,0.75\n"
        "200,train,-0.0,5e-324,2.0,12345.678\n"
        "200,test,200.0,20.0,180.0,99.0\n"
        "200,all test,201.0,21.0,180.0,99.5\n"
    )


def test_what_was_written_is_read_to_the_last_bit(tmp_path):
    for rows in (ROWS, ROWS[:1], []):
        write_metrics(tmp_path, rows)
        assert read_metrics(tmp_path) == rows
    assert ROWS[2].bounds == Bounds(300.0, 20.0, 280.0)


def test_without_a_file_there_are_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
    assert read_metrics(tmp_path / "nowhere") == []
    (tmp_path / "file").touch()
    assert read_metrics(tmp_path / "file") == []
    assert bounds_after(tmp_path / "nowhere", 100) == {}


def test_a_file_from_before_there_were_seconds_is_read(tmp_path):
    lines = "step,images,NELBO,KL,REC\n100,test,3.5,1.5,2.0\n100,all test,4.5,2.0,2.5\n"
    for _ in range(2):  # as it was, and as it is written then
        (tmp_path / METRICS).write_text(lines)
        rows = read_metrics(tmp_path)
        assert [row[:5] for row in rows] == [(100, TEST, 3.5, 1.5, 2), (100, ALL_TEST, 4.5, 2, 2.5)]
        assert all(math.isnan(row.seconds) for row in rows)
        assert {*bounds_after(tmp_path, 100)} == {TEST, ALL_TEST}
        write_metrics(tmp_path, rows)
        lines = (tmp_path / METRICS).read_text()


HEADER = b"step,images,NELBO,KL,REC,seconds\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"a" * 1_000_000,
        HEADER + b"100",
        HEADER + b"100,test",
        HEADER + b"100,test,1,2",
        HEADER + b"100,test,1,2,x,4",
        HEADER + b"1e2,test,1,2,3,4",
        HEADER + b",test,1,2,3,4",
        HEADER + b"100,test,1,2,3,4,5",
        HEADER + b"100,test,1,2,3,4\n\n100,test,1,2,3,4\n",
        HEADER + b'100,"test,1,2,3,4\n',
        HEADER + b"100,test,1,2,3," + bytes(9),
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path, content):
    path = tmp_path / METRICS
    path.write_bytes(content)
    for read in (
        lambda: read_metrics(tmp_path),
        lambda: bounds_after(tmp_path, 100),
        lambda: write_bounds(tmp_path, 100, {TEST: Bounds(3, 1, 2)}),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value) == f"{path} is damaged; delete it to go on without it"
        assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path):
    (tmp_path / METRICS).mkdir()
    with pytest.raises(IsADirectoryError):
        read_metrics(tmp_path)


def test_the_bounds_after_a_step_are_those_on_test_images(tmp_path):
    write_metrics(tmp_path, reversed(ROWS))
    assert bounds_after(tmp_path, 100) == {TEST: ROWS[1], ALL_TEST: ROWS[2]}
    assert bounds_after(tmp_path, 200) == {TEST: ROWS[4], ALL_TEST: ROWS[5]}
    assert list(bounds_after(tmp_path, 200)) == [TEST, ALL_TEST]
    assert bounds_after(tmp_path, 150) == {}


@pytest.mark.parametrize("lacking", [4, 5])
def test_half_of_the_bounds_are_none(tmp_path, lacking):
    write_metrics(tmp_path, ROWS[:lacking] + ROWS[lacking + 1 :])
    assert bounds_after(tmp_path, 200) == {}
    assert bounds_after(tmp_path, 100) != {}


@pytest.mark.parametrize("order", [1, -1])
def test_the_last_bounds_are_those_of_the_last_step_that_has_both(tmp_path, order):
    half = [Row(300, TEST, 100.0, 20.0, 80.0), Row(400, ALL_TEST, 90.0, 20.0, 70.0)]
    write_metrics(tmp_path, [*ROWS, *half][::order])
    assert last_bounds(tmp_path) == {TEST: ROWS[4], ALL_TEST: ROWS[5]}
    write_metrics(tmp_path, half)
    assert last_bounds(tmp_path) == {}


# Bounds that were measured later.

MEASURED = {TEST: Bounds(7.0, 3.0, 4.0), ALL_TEST: Bounds(8.0, 3.5, 4.5)}


def test_measured_bounds_take_the_place_of_older_ones_and_their_time(tmp_path):
    write_metrics(tmp_path, ROWS)
    write_bounds(tmp_path, 100, MEASURED)
    assert read_metrics(tmp_path) == [
        ROWS[0],
        Row(100, TEST, 7.0, 3.0, 4.0, 0.625),
        Row(100, ALL_TEST, 8.0, 3.5, 4.5, 0.75),
        *ROWS[3:],
    ]


def test_measured_bounds_of_another_step_come_in_its_place(tmp_path):
    write_metrics(tmp_path, ROWS)
    write_bounds(tmp_path, 150, MEASURED)
    rows = read_metrics(tmp_path)
    assert [row.step for row in rows] == [100, 100, 100, 150, 150, 200, 200, 200]
    assert rows[:3] + rows[5:] == ROWS
    assert [row[:5] for row in rows[3:5]] == [(150, *item) for item in flat(MEASURED)]
    assert all(math.isnan(row.seconds) for row in rows[3:5])


def flat(measured):
    return [(name, *bounds) for name, bounds in measured.items()]


def test_measured_bounds_of_a_foreign_model_make_a_table(tmp_path):
    write_bounds(tmp_path, 20000, MEASURED)
    found = bounds_after(tmp_path, 20000)
    assert {name: row.bounds for name, row in found.items()} == MEASURED
    before = (tmp_path / METRICS).read_bytes()
    write_bounds(tmp_path, 20000, MEASURED)
    assert (tmp_path / METRICS).read_bytes() == before


@pytest.mark.parametrize("holder", ["this process", "another process"])
def test_the_table_of_a_run_that_trains_is_left_to_it(tmp_path, start, holder):
    folder = tmp_path / "run"
    folder.mkdir()
    write_metrics(folder, ROWS)
    before = (folder / METRICS).read_bytes()
    if holder == "another process":
        other = hold(start, folder)
    with locked(folder) if holder == "this process" else nullcontext():
        write_bounds(folder, 100, MEASURED)
        assert (folder / METRICS).read_bytes() == before
    if holder == "another process":
        other.communicate()
    write_bounds(folder, 100, MEASURED)
    assert bounds_after(folder, 100)[TEST].bounds == MEASURED[TEST]


def test_a_table_that_cannot_be_written_is_left_as_it_is(tmp_path, monkeypatch):
    write_metrics(tmp_path, ROWS)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_bounds(tmp_path, 100, MEASURED)
    assert read_metrics(tmp_path) == ROWS
    assert os.listdir(tmp_path) == [METRICS]
    (tmp_path / "file").touch()
    write_bounds(tmp_path / "file", 100, MEASURED)  # no folder
