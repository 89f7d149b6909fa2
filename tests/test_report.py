"""Replicates and their table."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import SCRIPT

from codebase import checkpoint, report
from codebase.report import make_table
from run_vae import main

SHORT = ("--z", 3, "--iter_max", 25, "--dataset", "synthetic")


def test_the_table_averages_the_finished_runs():
    rows = {
        3: [100.0, 20.0, 80.0, 99.0, 61.9],
        1: [102.0, 19.0, 83.0, 98.0, None],
        2: "failed: disk full",
    }
    assert make_table(rows) == [
        ["1", "102.0000", "19.0000", "83.0000", "98.0000", ""],
        ["2", "failed: disk full", "", "", "", ""],
        ["3", "100.0000", "20.0000", "80.0000", "99.0000", "01:01"],
        ["average", "101.0000", "19.5000", "81.5000", "98.5000", ""],
        ["standard deviation", "1.4142", "0.7071", "2.1213", "0.7071", ""],
    ]
    assert make_table({0: "failed"}) == [["0", "failed", "", "", "", ""]]
    assert [name for name, *_ in make_table({0: rows[3]})] == ["0", "average"]


def test_replicates_are_the_runs_alone_and_a_failure_stops_no_other(
    run_vae, synthetic_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = (*SHORT, "--data_dir", synthetic_dir)
    runs = tmp_path / "checkpoints"
    runs.mkdir()
    (runs / checkpoint.model_name(3, 1)).write_text("in the way")
    table = run_vae(*options, "--runs", 3, "--jobs", 2)
    assert table.returncode == 1
    assert "Traceback" not in table.stderr
    title, _, header, _, first, second, third, average, deviation = table.stdout.splitlines()
    assert "synthetic" in title
    assert header.startswith("| run | NELBO | KL | REC |")
    assert first.startswith("| 0 | ")
    assert second.startswith("| 1 | failed: ")
    assert third.startswith("| 2 | ")
    assert average.startswith("| average | ")
    assert deviation.startswith("| standard deviation | ")
    with open(runs / "report_z=03.csv") as file:
        lines = [f"| {' | '.join(row)} |" for row in csv.reader(file)]
    assert lines == [header, first, second, third, average, deviation]

    in_table = [(runs / checkpoint.model_name(3, 2) / "model-00025.pt").read_bytes()]
    alone = run_vae(*options, "--run", 2)
    assert alone.returncode == 0, alone.stderr
    assert in_table == [(runs / checkpoint.model_name(3, 2) / "model-00025.pt").read_bytes()]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_report_ends_every_process_and_keeps_what_it_has(synthetic_dir, tmp_path):
    command = [sys.executable, SCRIPT, *SHORT, "--data_dir", synthetic_dir]
    command += ["--iter_max", 1_000_000, "--iter_save", 20, "--runs", 4, "--jobs", 2]
    parent = subprocess.Popen(
        [str(part) for part in command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folders = [tmp_path / "checkpoints" / checkpoint.model_name(3, run) for run in (0, 1)]
    deadline = time.monotonic() + 60
    while not all(checkpoint.state_path(folder).exists() for folder in folders):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does it
    start = time.monotonic()
    assert parent.wait(10) == 130
    assert time.monotonic() - start < 2.5
    states = [checkpoint.state_path(folder) for folder in folders]
    before = [state.read_bytes() for state in states]
    time.sleep(0.5)
    assert before == [state.read_bytes() for state in states]
    for folder in folders:
        state = checkpoint.load(checkpoint.state_path(folder))
        assert state["step"] >= 20


def test_a_process_that_dies_is_named_and_stops_no_other(
    synthetic_dir, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    arguments = [*map(str, SHORT), "--data_dir", str(synthetic_dir), "--runs", "2", "--jobs", "1"]
    monkeypatch.setattr("codebase.machine.prepare_processor", lambda: None)
    start = report._start

    def kill_the_first(context, options, run, *rest):
        process, results = start(context, options, run, *rest)
        if run == 0:
            process.kill()
        return process, results

    monkeypatch.setattr(report, "_start", kill_the_first)
    assert main(arguments) == 1
    table = capfd.readouterr().out
    assert "| 0 | failed: exit status -9 |" in table
    assert "| 1 | " in table.replace("failed", "")
    assert "| average | " in table
