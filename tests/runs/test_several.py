"""Several runs as several processes of the same command."""

import os
import re
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import pytest
import torch
from conftest import wait_for

from codebase.compute.processor import ONE_OF_SEVERAL
from codebase.runs import several
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_results
from codebase.runs.several import run_each
from codebase.settings import Settings
from codebase.system.errors import Interrupted
from codebase.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]
RUNS = [Settings(run=run) for run in range(5)]
# The beginning of each process below: its run, and functions to wait for others.
BEGINNING = """
import os, pathlib, signal, sys, time
run = int(sys.argv[-1].removeprefix("--run="))

def wait_for(*names):
    deadline = time.monotonic() + 60
    while not all(os.path.exists(name) for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def touch(name):
    pathlib.Path(name).touch()
"""


def each(program, runs=RUNS, jobs=2, threads=2):
    """Start a program for each run."""
    return run_each(runs, [sys.executable, "-c", BEGINNING + program], jobs, threads)


def test_as_many_runs_work_at_the_same_time_as_jobs_says():
    program = """
touch(f"working-{run}")
touch(f"begun-{run}")
wait_for("begun-0", "begun-1", "begun-2")
beside = len([*pathlib.Path().glob("working-*")])
os.remove(f"working-{run}")
sys.exit(beside > 3)
"""
    assert each(program, jobs=3) == {}
    assert each("open('order', 'a').write(f'{run}')", jobs=1) == {}
    assert Path("order").read_text() == "01234"


@pytest.mark.parametrize(
    ("jobs", "threads", "share", "user"), [(2, 5, 2, "5"), (2, 1, 1, ""), (9, 8, 4, "1")]
)
def test_processes_share_the_threads_but_no_input_output_terminal_and_batches_of_torchrun(
    monkeypatch, torchrun, capfd, jobs, threads, share, user
):
    """Standard output is only for the table, and Ctrl-C reaches the parent alone."""
    torchrun()
    monkeypatch.setenv("OMP_NUM_THREADS", user)
    names = ("OMP_NUM_THREADS", ONE_OF_SEVERAL, "TORCHELASTIC_RUN_ID")
    program = f"""
print("output", file=sys.stdout, flush=True)
without = os.path.samefile("/dev/stdin", os.devnull) and os.getsid(0) == os.getpid()
sys.exit(f"{{[os.environ.get(name) for name in {names}]}} {{without}}")
"""
    message = f"{[str(share) if user == '5' else None, str(share), None]} True"
    assert each(program, RUNS[:2], jobs, threads) == {0: message, 1: message}
    output, errors = capfd.readouterr()
    assert output == "" and errors.count(message) == 2
    assert re.findall(r"\d+", errors.splitlines()[0]) == ["2", "2", str(share)]


@pytest.mark.parametrize(
    ("device", "rank", "size", "jobs"),
    [("cpu", 0, 1, 5), ("cuda", 0, 1, 1), ("cpu", 0, 2, 1), ("cpu", 1, 2, 1)],
)
def test_one_run_per_thread_trains_at_a_time_but_one_on_a_gpu_or_under_torchrun(
    run_vae, monkeypatch, device, rank, size, jobs
):
    """Processes of torchrun share the runs, and the first one decides on data and prints.

    Under torchrun, each run gets the device of its process.
    """

    def run_each(runs, command, *numbers):
        assert [settings.run for settings in runs] == [0, 1, 2][rank::size]
        assert numbers == (jobs, 5)  # 5 is the number of threads.
        own = "auto" if size == 1 else device
        assert {f"--device={own}", "--dataset=synthetic", "--runs=1", "--z=3"} <= {*command}
        return {settings.run: "not today" for settings in runs}

    processes = SimpleNamespace(first=rank == 0, rank=rank, size=size, gather=dict)
    processes.broadcast = lambda value: value or "synthetic"
    resolved = {"synthetic": "synthetic"} | ({} if rank else {"auto": "synthetic"})
    # A process that only starts others does not probe the device.
    chosen = {False: torch.device(device)}
    monkeypatch.setattr("codebase.compute.processor.choose_device", lambda _, probe: chosen[probe])
    monkeypatch.setattr("codebase.datasets.loading.resolve", lambda name, _: resolved[name])
    monkeypatch.setattr("codebase.compute.processes.connected", lambda _: nullcontext(processes))
    monkeypatch.setattr("codebase.runs.several.run_each", run_each)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    finished = run_vae("--runs", 3, "--z", 3)
    assert finished.returncode == (rank == 0)
    assert finished.stdout.count("failed: not today") == (0 if rank else len([0, 1, 2][::size]))


def test_the_bar_counts_shares_of_runs_so_that_it_knows_the_time_that_remains(monkeypatch, capsys):
    """The runs wait at 40 % until the bar has shown it."""
    shown = []

    def sleep(seconds):
        shown.append(capsys.readouterr().err)
        if "0.8/2" in shown[-1]:
            Path("seen").touch()
        time.sleep(seconds)

    monkeypatch.setattr(several, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(several, "is_interactive", lambda: True)
    each("print(f'run {run}:  40%|####', file=sys.stderr, flush=True); wait_for('seen')", RUNS[:2])
    shown = "".join(shown) + capsys.readouterr().err
    assert re.search(r"0\.8/2 .*<.*run 0:  40%, run 1:  40%", shown) and "2.0/2" in shown


# How runs end, and their messages.
ENDS = {
    "sys.exit('run_vae.py: a sentence')": "a sentence",
    "print('5%\\r7%\\rthe last\\n \\n', file=sys.stderr); sys.exit(2)": "the last",
    "sys.stderr.buffer.write(b'no \\xff text\\n'); sys.exit(1)": "no \ufffd text",
    "raise RuntimeError('CUDA error: busy\\npass X\\nuse Y')": "RuntimeError: CUDA error: busy",
    "os.kill(os.getpid(), signal.SIGKILL)": "its process was ended by signal 9",
}


def test_a_run_that_fails_is_reported_by_the_line_of_its_error_and_stops_no_other(capsys):
    """A run is finished if only its picture fails, which has the status 3."""
    lines = [*ENDS, "print('no page', file=sys.stderr); sys.exit(3)", "touch('ended')"]
    runs = [Settings(run=run) for run, _ in enumerate(lines)]
    assert each(f"exec({lines}[run])", runs) == dict(enumerate(ENDS.values()))
    assert f"run {len(ENDS)}: no page\n" in capsys.readouterr().err
    assert Path("ended").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_to_every_process_and_all_save(stray, monkeypatch, number):
    """A process that starts while the signal comes is ended, too."""
    program = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(touch(f"saved-{run}")))
touch(f"begun-{run}")
wait_for("the signal")
"""

    class Started(Popen):
        def __init__(self, command, **options):
            super().__init__(command, **options)
            if command[-1] == "--run=1":
                wait_for(lambda: Path("begun-0").exists() and Path("begun-1").exists())
                os.kill(os.getpid(), number)

    monkeypatch.setattr("codebase.runs.several.Popen", Started)
    with pytest.raises(Interrupted, match="--resume 1") as caught:
        each(program, jobs=3)
    assert caught.value.status == 128 + number
    begun = {path.name for path in Path().glob("*-*")}
    assert begun == {"begun-0", "begun-1", "saved-0", "saved-1"}  # no other run has begun
    assert stray == []


def be_parent(folder, program):
    """Be a process that starts two runs in a folder."""
    os.chdir(folder)
    each(program, RUNS[:2])


def test_runs_whose_parent_is_killed_go_on_to_their_end(forking, place):
    """They do not write into a pipe that nobody reads."""
    program = """
touch(f"begun-{run}")
wait_for("go")
print(10_000 * "a line\\n", file=sys.stderr, flush=True)
touch(f"ended-{run}")
"""
    killed = forking.Process(target=be_parent, args=(place, program))
    killed.start()
    wait_for(lambda: len([*Path().glob("begun-*")]) == 2)
    killed.kill()
    killed.join()
    Path("go").touch()
    wait_for(lambda: len([*Path().glob("ended-*")]) == 2)


def test_the_command_line_trains_several_runs_and_a_run_that_fails_stops_no_other(
    run_vae, script, small, synthetic_images, monkeypatch
):
    """A file in the place of its folder stops the first run."""
    settings = Settings("tiny", 3, lr=5e-4, iter_max=30, dataset="synthetic", run=3)
    first, second = RunFolder(settings._replace(run=2)), RunFolder(settings)
    second.path.mkdir(parents=True)
    second.state.write_text("of an earlier run")
    first.path.write_text("in the way")
    monkeypatch.setattr("run_vae.__file__", str(script))  # the copy of the project
    finished = run_vae(*small, "--lr", 5e-4, "--runs", 2, "--run", 2)
    assert finished.returncode == 1
    assert finished.stderr.count(f"{second.path.name}.1; --resume 1") == 1
    assert Path(f"{second.path}.1", second.state.name).exists()
    # Standard output holds nothing but the table.
    title, empty, _, _, failed, line, average = finished.stdout.splitlines()
    measured = read_results(second, 30)
    cells = " . ".join(f"{x:.2f}" for x in (*measured.subset[:3], measured.all.nelbo))
    assert title.endswith(f"{first.path.name}-0003_steps=30") and empty == ""
    assert failed.startswith(f"| 2 | failed: {first.path}: File exists |")
    assert re.fullmatch(rf"\| 3 \| {cells} . \d\d:\d\d . 30 . synthetic \|", line)
    assert re.match(rf"\| average \| {cells} \|", average)

    model = second.model(30).read_bytes()
    train(settings, synthetic_images, "cpu")
    assert second.model(30).read_bytes() == model
