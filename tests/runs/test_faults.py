"""What a run has earned survives what happens to it. Every fault here is a real one."""

import os
import resource
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import wait_for
from training import files_in, results_in

from codebase.runs import checkpoint
from codebase.runs.folder import saved_steps, state_path
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


@pytest.fixture
def fill(folder):
    """Put the folders of the runs on a file system of their own, and have it be full.

    The model of 32 kB finds room there, and a state of 110 kB does not. Called with False, it has
    room again. Where there is no file system to be had, the size of each file is limited instead.
    """
    disk, limit = folder.parent, resource.getrlimit(resource.RLIMIT_FSIZE)
    disk.mkdir()
    mount = ["sh", "-c", f"mount -t tmpfs -o size=3m tmpfs '{disk}'"]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    filler = disk / "other"

    def fill(full=True):
        if mounted:
            filler.write_bytes(b"")
            filler.write_bytes(bytes(full * (shutil.disk_usage(disk).free - 60_000)))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000 if full else limit[0], limit[1]))
        return "No space left on device" if mounted else "File too large"

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    if mounted:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "run"), [(("--run", 1), 1), (("--resume", 1, "--iter_max", 60), 0)]
)
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(
    run_vae, small, folder, fill, arguments, run
):
    assert run_vae(*small).returncode == 0
    before = files_in(folder)
    assert before.keys() >= {"model-00030.pt", "training-state.pt", "metrics.csv"}
    reason = fill()
    finished = run_vae(*small, *arguments)
    assert finished.returncode == 1
    path = f"checkpoints/{NAME.format(run)}/training-state.pt"
    assert finished.stderr.splitlines()[-1] == f"run_vae.py: {path}: {reason}"
    assert temporary_files(folder.parent) == []
    kept = files_in(folder)
    for name in before.keys() - {"metrics.csv", "settings.json"}:
        assert kept[name] == before[name]
    assert kept["metrics.csv"].startswith(before["metrics.csv"])


@pytest.mark.slow
def test_once_there_is_room_the_run_ends_as_it_would_have(
    run_vae, small, folder, fill, tmp_path, monkeypatch
):
    assert run_vae(*small).returncode == 0
    fill()
    longer = (*small, "--iter_max", 60)
    assert run_vae(*longer, "--resume", 1).returncode == 1
    fill(False)
    assert "Resuming at step 30\n" in run_vae(*longer, "--resume", 1).stdout
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_vae(*longer, "--iter_save", 30).returncode == 0
    assert results_in(Path("checkpoints", folder.name)) == results_in(folder)


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
