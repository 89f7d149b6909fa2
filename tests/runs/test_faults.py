"""Runs survive signals, full disks and second processes. Every fault here is a real one."""

import os
import resource
import shutil
import subprocess
import threading

import pytest
from conftest import wait_for
from training import files_in, results_in, state_step

from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.signals import ENDING

LONG = ("--iter_max", 1_000_000)
RUN = RunFolder(Settings("tiny", 3, dataset="synthetic"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_the_run_and_it_can_be_resumed(run_vae, small, stray, number):
    def send():
        wait_for(RUN.saved_steps)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = run_vae(*small, *LONG, "--iter_save", 20)
    thread.join()
    assert stopped.returncode == 128 + number
    step = state_step(RUN)
    message = stopped.stderr.splitlines()[-1]
    assert message.startswith(f"run_vae.py: interrupted at step {step}; ")
    assert "--resume 1" in message
    resumed = run_vae(*small, "--iter_max", step + 1, "--resume", 1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Resuming at step {step}\n" in resumed.stdout
    assert stray == []


@pytest.fixture
def fill():
    """Put the runs on a file system of their own, and fill it; `fill(False)` empties it.

    There is room for a model of 32 kB, but not for a state of 110 kB. If this user cannot mount a
    file system, the size of each file is limited instead.
    """
    disk, limit = RUN.path.parent.absolute(), resource.getrlimit(resource.RLIMIT_FSIZE)
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
def test_a_full_disk_is_reported_in_one_sentence_and_deletes_nothing(
    run_vae, small, fill, arguments, run
):
    assert run_vae(*small).returncode == 0
    before = files_in(RUN.path)
    assert before.keys() >= {"model-00030.pt", "training-state.pt", "metrics.csv"}
    reason = fill()
    finished = run_vae(*small, *arguments)
    assert finished.returncode == 1
    state = RunFolder(RUN.settings._replace(run=run)).state
    assert finished.stderr.splitlines()[-1] == f"run_vae.py: {state}: {reason}"
    assert not list(RUN.path.parent.rglob(".*.tmp"))
    kept = files_in(RUN.path)
    for name in before.keys() - {"metrics.csv", "settings.json"}:
        assert kept[name] == before[name]
    assert kept["metrics.csv"].startswith(before["metrics.csv"])


@pytest.mark.slow
def test_once_there_is_room_the_run_ends_in_the_same_bytes(
    run_vae, small, fill, tmp_path, monkeypatch
):
    assert run_vae(*small).returncode == 0
    fill()
    longer = (*small, "--iter_max", 60)
    assert run_vae(*longer, "--resume", 1).returncode == 1
    fill(False)
    assert "Resuming at step 30\n" in run_vae(*longer, "--resume", 1).stdout
    resumed = results_in(RUN.path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_vae(*longer, "--iter_save", 30).returncode == 0
    assert results_in(RUN.path) == resumed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_reported_in_one_sentence(run_vae, small):
    RUN.path.mkdir(parents=True)
    RUN.path.chmod(0o500)
    finished = run_vae(*small)
    assert "Permission denied" in finished.stderr.splitlines()[-1]
    assert finished.returncode == 1


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_one_is_killed(run_vae, start, script, small):
    first = start(script, *small, *LONG, "--iter_save", 20)
    wait_for(RUN.saved_steps)
    for resume in (0, 1):
        second = run_vae(*small, "--resume", resume)
        assert second.returncode == 1
        assert f"another process is training in {RUN.path};" in second.stderr
        assert first.poll() is None
    first.kill()
    first.wait()
    (RUN.path / ".123.tmp").touch()  # left behind by a process that was killed while it saved
    third = run_vae(*small, "--resume", 1, "--iter_max", 1 + state_step(RUN))
    assert third.returncode == 0, third.stderr
    assert not list(RUN.path.parent.rglob(".*.tmp"))
