"""What a run has earned survives what happens to it. Every fault here is a real one."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import NETWORKS, wait_for
from training import TINY, after_each_step, files_in, results_in, train_small

from codebase import evaluate
from codebase.models import nns
from codebase.runs import checkpoint
from codebase.runs.folder import model_path, run_folder, saved_steps, state_path
from codebase.system.signals import ENDING

LONG = ("--iter_max", 1_000_000)
NAME = "model=vae_nn=tiny_z=03_dataset=synthetic_run={:04d}"


@pytest.fixture
def folder(tmp_path):
    """The folder of the run with small networks."""
    return tmp_path / "checkpoints" / NAME.format(0)


def temporary_files(folder):
    return list(folder.rglob(".*.tmp"))


def step_of(folder):
    return checkpoint.load(state_path(folder))["training"]["step"]


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_and_says_how_to_go_on(run_vae, small, folder, stray, number):
    def send():
        wait_for(lambda: saved_steps(folder))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = run_vae(*small, *LONG, "--iter_save", 20)
    thread.join()
    assert stopped.returncode == 128 + number
    sentence = stopped.stderr.splitlines()[-1]
    step = step_of(folder)
    assert sentence == (
        f"run_vae.py: interrupted at step {step}; the same command with --resume 1 goes on from "
        "there"
    )
    resumed = run_vae(*small, "--iter_max", step + 1, "--resume", 1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Resuming at step {step}\n" in resumed.stdout
    assert stray == []


def train_and_tell(folder: Path, iter_max: int, pipe: Connection) -> None:
    """Train small networks, saving after every step, and tell of each before it is saved."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    pipe.send(("start", os.getpid()))

    def tell(_, adam):
        pipe.send(("step", int(next(iter(adam.state.values()))["step"])))

    with after_each_step(tell):
        settings = TINY._replace(iter_max=iter_max)
        train_small(settings, iter_save=10, resume=True, seconds_between_states=0)


def train_on_demand(pipe: Connection) -> None:
    """Fork a process for each run that is asked for, and tell of its end.

    So everything is imported once for all of them.
    """
    nns.__path__.append(str(NETWORKS))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    evaluate.SUBSET_PASSES = 1  # which is not what this is about
    context = multiprocessing.get_context("fork")
    with suppress(EOFError):
        while True:
            process = context.Process(target=train_and_tell, args=(*pipe.recv(), pipe))
            process.start()
            process.join()
            pipe.send(("end", process.exitcode))


@pytest.fixture
def trainer(forking):
    """The other end of the pipe of a process that trains on demand."""
    pipe, its_end = forking.Pipe()
    process = forking.Process(target=train_on_demand, args=(its_end,))
    process.start()
    its_end.close()
    yield pipe
    pipe.close()
    process.join()


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(trainer, tmp_path):
    chance = random.Random(0)
    seen: dict[Path, bytes] = {}
    reached, during_saves = 0, 0
    killed, whole = (tmp_path / name / run_folder(TINY) for name in ("killed", "whole"))

    def told():
        assert trainer.poll(300)
        return trainer.recv()

    for _ in range(100):
        trainer.send((tmp_path / "killed", 1_000_000))
        _, process = told()
        for _ in range(chance.randint(1, 4)):  # of a step that is done and is now saved
            _, reached = told()
        time.sleep(chance.uniform(0, 0.01))
        os.kill(process, signal.SIGKILL)
        while (last := told())[0] == "step":
            reached = last[1]
        assert last == ("end", -signal.SIGKILL)
        during_saves += bool(temporary_files(tmp_path))
        for step in saved_steps(killed):
            path = model_path(killed, step)
            assert seen.setdefault(path, path.read_bytes()) == path.read_bytes()
        assert all(path.exists() for path in seen)
        if reached > 1:
            assert step_of(killed) >= reached - 1
    assert reached > 100
    assert len(seen) > 10
    assert during_saves > 0

    # The killed run, gone on with, ends in the bytes of one that nobody touched.
    goal = step_of(killed) + 10
    for folder in ("killed", "whole"):
        trainer.send((tmp_path / folder, goal))
        while (last := told())[0] != "end":
            pass
        assert last == ("end", 0)
    assert {path.name for path in seen} < results_in(killed).keys()
    assert results_in(killed) == results_in(whole)
    assert temporary_files(tmp_path) == []


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(
    run_vae, small, folder, tmp_path, monkeypatch
):
    """A model of 32 kB finds room beside the earlier run; a state of 110 kB does not."""
    disk, limit = folder.parent, resource.getrlimit(resource.RLIMIT_FSIZE)
    disk.mkdir()
    mount = ["sh", "-c", f"mount -t tmpfs -o size=3m tmpfs '{disk}'"]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    filler = disk / "other"
    try:
        assert run_vae(*small).returncode == 0
        before = files_in(folder)
        assert before.keys() >= {"model-00030.pt", "training-state.pt", "metrics.csv"}
        for arguments, run in [(("--run", 1), 1), (("--resume", 1, "--iter_max", 60), 0)]:
            if mounted:
                filler.write_bytes(b"")
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 60_000))
            else:  # no file system to be had: limit the size of a file instead
                resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
            finished = run_vae(*small, *arguments)
            assert finished.returncode == 1
            path = f"checkpoints/{NAME.format(run)}/training-state.pt"
            reason = "No space left on device" if mounted else "File too large"
            assert finished.stderr.splitlines()[-1] == f"run_vae.py: {path}: {reason}"
            assert temporary_files(disk) == []
            kept = files_in(folder)
            for name in before.keys() - {"metrics.csv", "settings.json"}:
                assert kept[name] == before[name]
            assert kept["metrics.csv"].startswith(before["metrics.csv"])
        # Once there is room, the run goes on from where it was, and ends as it would have.
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        filler.unlink(missing_ok=True)
        resumed = run_vae(*small, "--resume", 1, "--iter_max", 60)
        assert "Resuming at step 30\n" in resumed.stdout
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert run_vae(*small, "--iter_max", 60, "--iter_save", 30).returncode == 0
        assert results_in(Path("checkpoints", folder.name)) == results_in(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if mounted:
            subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(run_vae, small, folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    finished = run_vae(*small)
    assert "Permission denied" in finished.stderr.splitlines()[-1]
    assert finished.returncode == 1


@pytest.mark.slow
def test_a_second_run_of_the_name_is_refused_and_a_dead_one_is_no_obstacle(
    run_vae, start, script, small, folder
):
    first = start(script, *small, *LONG, "--iter_save", 20)
    wait_for(lambda: saved_steps(folder))
    for resume in (0, 1):
        second = run_vae(*small, "--resume", resume)
        assert second.returncode == 1
        assert f"another process is training in checkpoints/{folder.name};" in second.stderr
        assert first.poll() is None
    first.kill()
    first.wait()
    (folder / ".123.tmp").touch()  # as a process leaves it that is killed while it saves
    third = run_vae(*small, "--resume", 1, "--iter_max", 1 + step_of(folder))
    assert third.returncode == 0, third.stderr
    assert temporary_files(folder) == []
