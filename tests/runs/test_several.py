"""Several runs: processes of the same command, and what the command line makes of them."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import pytest
import torch
from conftest import wait_for

from codebase.runs.several import run_each
from codebase.settings import Settings
from codebase.system.errors import Interrupted
from codebase.system.streams import lenient_streams

CPU = torch.device("cpu")
RUNS = [Settings(run=run, iter_max=500) for run in range(5)]
# What a process of the tests below begins with: its run, and a way to wait for others.
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

def finish():
    folder = pathlib.Path(f"checkpoints/model=vae_z=10_run={run:04d}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = "500,test,1,1,0,1\\n500,all test,1,1,0,1\\n"
    (folder / "metrics.csv").write_text("step,images,NELBO,KL,REC,seconds\\n" + rows)
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def each(program, runs=RUNS, jobs=2, threads=2):
    """Start a program for each run."""
    return run_each(runs, [sys.executable, "-c", BEGINNING + program], jobs, threads)


def test_every_run_is_started_with_its_number_once(capsys):
    assert each("with open(f'run-{run}', 'a') as file: file.write('started ')") == {}
    assert [Path(f"run-{run}").read_text() for run in range(5)] == ["started "] * 5
    assert "5 runs, 2 at a time, threads for each: 1\n" in capsys.readouterr().err


def test_as_many_work_beside_each_other_as_is_said():
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


def test_one_at_a_time_goes_in_order():
    program = "with open('order', 'a') as file: file.write(str(run))"
    assert each(program, jobs=1) == {}
    assert Path("order").read_text() == "01234"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_nothing_of_a_run_that_has_ended_stays_open():
    """A program may have a thousand open files, and runs."""
    program = "with open('open', 'a') as file: print(len(os.listdir('/proc/%s/fd')), file=file)"
    assert each(program % os.getpid(), jobs=1) == {}
    assert len(set(Path("open").read_text().split())) == 1


@pytest.mark.parametrize(
    ("jobs", "threads", "runs", "share"), [(2, 5, 5, 2), (4, 2, 5, 1), (0, 3, 5, 3), (9, 8, 2, 4)]
)
def test_processes_share_the_threads(monkeypatch, capsys, jobs, threads, runs, share):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # each has a run of its own, alone
    program = "sys.exit(f\"{os.environ['OMP_NUM_THREADS']} {'TORCHELASTIC_RUN_ID' in os.environ}\")"
    failures = each(program, RUNS[:runs], jobs, threads)
    assert {*failures.values()} == {f"{share} False"}
    assert f", threads for each: {share}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "processes", "jobs"), [("cpu", 1, 5), ("cpu", 2, 1), ("cuda", 1, 1)]
)
def test_as_many_runs_as_threads_are_beside_each_other_but_one_on_a_gpu(
    run_vae, synthetic_images, monkeypatch, device, processes, jobs
):
    """And each is told what "auto" is: the device and the data."""
    asked = []

    @contextmanager
    def assembled(_):
        yield SimpleNamespace(first=True, rank=0, size=processes, from_first=str, gather=dict)

    def run_each(runs, command, jobs, threads):
        asked.append((jobs, threads))
        for option in (f"device={device}", "dataset=synthetic", "runs=1", "z=3"):
            assert f"--{option}" in command
        return {settings.run: "not today" for settings in runs}

    monkeypatch.setattr("codebase.system.processor.choose_device", lambda _: torch.device(device))
    monkeypatch.setattr("codebase.datasets.loading.load", lambda *_: synthetic_images)
    monkeypatch.setattr("codebase.runs.team.assembled", assembled)
    monkeypatch.setattr("codebase.runs.several.run_each", run_each)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    finished = run_vae("--runs", 2, "--nn", "tiny", "--z", 3)
    assert finished.returncode == 1
    assert finished.stdout.count("failed: not today") == (2 if processes == 1 else 1)
    assert asked == [(jobs, 5)]


@pytest.fixture
def answer():
    """Somebody who has typed an answer before anything was asked."""
    reader, writer = os.pipe()
    os.write(writer, b"an answer\n")
    os.close(writer)
    before = os.dup(0)
    os.dup2(reader, 0)
    yield
    os.dup2(before, 0)
    os.close(before)
    os.close(reader)


def test_a_process_has_no_part_in_the_streams_of_this_one(capfd, answer):
    """Nobody answers it, standard output is the table's, and of its errors the last is a bar."""
    program = """
print("output", file=sys.stdout, flush=True)
print(f"step {run}", end="\\r", file=sys.stderr)
sys.exit(sys.stdin.read() != "")
"""
    assert each(program, RUNS[3:4]) == {}
    output, errors = capfd.readouterr()
    assert output == ""
    assert "step 3" in errors


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("sys.exit('run_vae.py: a sentence')", "a sentence"),
        ("print('5%\\r7%\\rthe last', file=sys.stderr); sys.exit(2)", "the last"),
        ("print('the last\\n\\n  \\n', file=sys.stderr); sys.exit(1)", "the last"),
        ("sys.stderr.buffer.write(b'no \\xff text\\n'); sys.exit(1)", "no \ufffd text"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was ended by signal 9"),
    ],
)
def test_a_run_that_fails_is_told_by_its_last_words_and_stops_no_other(program, sentence):
    failures = each(f"touch(f'begun-{{run}}')\nif run % 2:\n    {program}\nfinish()")
    assert failures == {1: sentence, 3: sentence}
    assert len([*Path().glob("begun-*")]) == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
def test_a_full_standard_error_costs_no_run_and_no_sentence(monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        with lenient_streams():
            failures = each("print('words', file=sys.stderr); finish(); sys.exit(run % 4)")
    assert failures == {1: "words", 2: "words"}  # and with status 3 only a picture fails


def test_a_run_of_which_only_a_picture_fails_is_finished(capsys):
    assert each("print('no page', file=sys.stderr); sys.exit(3)", RUNS[:2]) == {}
    errors = capsys.readouterr().err
    assert "run 0: no page\n" in errors
    assert "run 1: no page\n" in errors
    # But bounds that were there before it began are not its own.
    assert each("sys.exit('no model')", RUNS[:2]) == {0: "no model", 1: "no model"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_every_process_and_this_one_waits_until_all_have_saved(stray, number):
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
    with pytest.raises(Interrupted, match="--resume 1 goes on from what is saved") as caught:
        each(program)
    assert caught.value.status == 128 + number
    assert sorted(path.name for path in Path().glob("*-*")) == [
        *("begun-0", "begun-1", "saved-0", "saved-1")  # and no other run is begun
    ]
    assert stray == []


def test_a_process_that_starts_while_a_signal_comes_is_ended_too(stray, monkeypatch):
    program = """
touch(f"begun-{run}")
if run == 0:
    wait_for("the signal")
signal.signal(signal.SIGALRM, lambda *_: touch("was left alone"))
signal.alarm(60)
signal.pause()
"""

    started = []

    class Started(Popen):
        def __init__(self, command, **options):
            if command[-1] == "--run=1":
                wait_for(lambda: started and Path("begun-0").exists())
                os.kill(os.getpid(), signal.SIGTERM)
                wait_for(lambda: started[0].poll() is not None)
            super().__init__(command, **options)
            started.append(self)

    monkeypatch.setattr("codebase.runs.several.Popen", Started)
    with pytest.raises(Interrupted):
        each(program)
    assert not Path("was left alone").exists()
    assert stray == []


def test_a_program_that_cannot_be_started_is_an_error_of_the_system():
    with pytest.raises(FileNotFoundError, match="no such program"):
        run_each(RUNS, ["no such program"], jobs=2, threads=2)
