"""Several runs as several processes of the same command."""

import os
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import pytest
import torch
from conftest import wait_for

from codebase.runs import several
from codebase.runs.several import run_each
from codebase.settings import Settings
from codebase.system.errors import Interrupted

RUNS = [Settings(run=run, iter_max=500) for run in range(5)]
# The beginning of each process below: its run, and functions to wait for others.
BEGINNING = """
import os, pathlib, signal, sys, time
run = int(sys.argv[-1].removeprefix("--run="))

def wait_for(*names):
    deadline = time.monotonic() + 300
    while not all(os.path.exists(name) for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def touch(name):
    pathlib.Path(name).touch()
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def each(program, runs=RUNS, jobs=2, threads=2):
    """Start a program for each run."""
    return run_each(runs, [sys.executable, "-c", BEGINNING + program], jobs, threads)


def test_every_run_is_started_once_with_its_number(capsys):
    assert each("with open(f'run-{run}', 'a') as file: file.write('started ')") == {}
    assert [Path(f"run-{run}").read_text() for run in range(5)] == ["started "] * 5
    assert "5 runs, 2 at a time, threads for each: 1\n" in capsys.readouterr().err


def test_as_many_runs_work_at_the_same_time_as_jobs_says():
    program = """
if run < 3:
    touch(f"begun-{run}")
    wait_for("begun-0", "begun-1", "begun-2")
touch(f"working-{run}")
beside = len([*pathlib.Path().glob("working-*")])
os.remove(f"working-{run}")
sys.exit(beside > 3)
"""
    assert each(program, jobs=3) == {}


def test_one_at_a_time_they_run_in_order():
    program = "with open('order', 'a') as file: file.write(str(run))"
    assert each(program, jobs=1) == {}
    assert Path("order").read_text() == "01234"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_a_run_that_has_ended_leaves_no_file_open():
    """A program may have a thousand runs, but only a thousand open files."""
    program = "with open('open', 'a') as file: print(len(os.listdir('/proc/%s/fd')), file=file)"
    assert each(program % os.getpid(), jobs=1) == {}
    assert len(set(Path("open").read_text().split())) == 1


@pytest.mark.parametrize(
    ("jobs", "threads", "runs", "share"), [(2, 5, 5, 2), (4, 2, 5, 1), (0, 3, 5, 3), (9, 8, 2, 4)]
)
def test_processes_share_the_threads_and_not_the_batches_of_torchrun(
    monkeypatch, capsys, jobs, threads, runs, share
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    program = "sys.exit(f\"{os.environ['OMP_NUM_THREADS']} {'TORCHELASTIC_RUN_ID' in os.environ}\")"
    failures = each(program, RUNS[:runs], jobs, threads)
    assert {*failures.values()} == {f"{share} False"}
    assert f", threads for each: {share}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "processes", "jobs"), [("cpu", 1, 5), ("cpu", 2, 1), ("cuda", 1, 1)]
)
def test_one_run_per_thread_trains_at_a_time_but_one_on_a_gpu_or_under_torchrun(
    run_vae, monkeypatch, device, processes, jobs
):
    """Each process gets the data that "auto" stands for, and under torchrun its device."""
    asked = []

    @contextmanager
    def connected(_):
        yield SimpleNamespace(first=True, rank=0, size=processes, broadcast=str, gather=dict)

    def run_each(runs, command, jobs, threads):
        asked.append((jobs, threads))
        own = "auto" if processes == 1 else device
        for option in (f"device={own}", "dataset=synthetic", "runs=1", "z=3"):
            assert f"--{option}" in command
        return {settings.run: "not today" for settings in runs}

    monkeypatch.setattr(
        "codebase.compute.processor.choose_device", lambda *_, **__: torch.device(device)
    )
    monkeypatch.setattr("codebase.datasets.loading.resolve", lambda *_: "synthetic")
    monkeypatch.setattr("codebase.compute.processes.connected", connected)
    monkeypatch.setattr("codebase.runs.several.run_each", run_each)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    finished = run_vae("--runs", 2, "--nn", "tiny", "--z", 3)
    assert finished.returncode == 1
    assert finished.stdout.count("failed: not today") == (2 if processes == 1 else 1)
    assert asked == [(jobs, 5)]


def test_a_process_reads_no_input_prints_no_output_and_its_errors_are_shown(capfd):
    """Standard output is only for the table."""
    program = """
print("output", file=sys.stdout, flush=True)
print(f"step {run}", end="\\r", file=sys.stderr)
sys.exit(not os.path.samefile("/dev/stdin", os.devnull))
"""
    assert each(program, RUNS[3:4]) == {}
    output, errors = capfd.readouterr()
    assert output == ""
    assert "step 3" in errors


def test_the_bar_counts_shares_of_runs_so_that_it_knows_the_time_that_remains(monkeypatch, capsys):
    monkeypatch.setattr(several, "is_interactive", lambda: True)
    each("print(f'run {run}:  40%|####', file=sys.stderr); time.sleep(1)", RUNS[:2])
    shown = capsys.readouterr().err
    assert "| 0.8/2 [00:0" in shown and "| 2.0/2 [" in shown
    assert re.search(r"\| 0.8/2 \[00:0\d<00:0\d, run 0:", shown)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("sys.exit('run_vae.py: a sentence')", "a sentence"),
        ("print('5%\\r7%\\rthe last', file=sys.stderr); sys.exit(2)", "the last"),
        ("print('the last\\n\\n  \\n', file=sys.stderr); sys.exit(1)", "the last"),
        ("sys.stderr.buffer.write(b'no \\xff text\\n'); sys.exit(1)", "no \ufffd text"),
        (
            "raise RuntimeError('CUDA error: busy\\nfor debugging pass X\\ncompile with Y')",
            "RuntimeError: CUDA error: busy",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was ended by signal 9"),
    ],
)
def test_a_run_that_fails_is_reported_by_the_line_of_its_error_and_stops_no_other(program, message):
    failures = each(f"touch(f'begun-{{run}}')\nif run % 2:\n    {program}")
    assert failures == {1: message, 3: message}
    assert len([*Path().glob("begun-*")]) == 5


def test_a_run_is_finished_if_only_its_picture_fails(capsys):
    assert each("print('no page', file=sys.stderr); sys.exit(3)", RUNS[:2]) == {}
    errors = capsys.readouterr().err
    assert "run 0: no page\n" in errors
    assert "run 1: no page\n" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_to_every_process_and_all_save(stray, number):
    program = f"""
def save(*_):
    touch(f"saved-{{run}}")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
touch(f"begun-{{run}}")
if run == 0:
    wait_for("begun-1")
    os.kill(os.getppid(), {number})
wait_for("the signal")
"""
    with pytest.raises(Interrupted, match="--resume 1") as caught:
        each(program)
    assert caught.value.status == 128 + number
    assert sorted(path.name for path in Path().glob("*-*")) == [
        *("begun-0", "begun-1", "saved-0", "saved-1")  # no other run has begun
    ]
    assert stray == []


def test_a_process_that_starts_while_a_signal_comes_is_ended_too(stray, monkeypatch):
    class Started(Popen):
        def __init__(self, command, **options):
            if command[-1] == "--run=1":
                wait_for(Path("begun-0").exists)
                os.kill(os.getpid(), signal.SIGTERM)
            super().__init__(command, **options)

    monkeypatch.setattr("codebase.runs.several.Popen", Started)
    with pytest.raises(Interrupted):
        each("touch(f'begun-{run}'); time.sleep(60); touch('was left alone')")
    assert not Path("was left alone").exists()
    assert stray == []


def test_a_program_that_cannot_be_started_raises_an_os_error():
    with pytest.raises(FileNotFoundError, match="no such program"):
        run_each(RUNS, ["no such program"], jobs=2, threads=2)
