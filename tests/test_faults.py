"""What a run has earned survives what happens to it. Every fault here is a real one."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SCRIPT

from codebase import checkpoint, data, step, train
from codebase.models.nns import v1
from codebase.models.vae import VAE

NAME = "model=vae_z=03_run=0000"
SETTINGS = step.Settings(3, 0, 1_000_000, 1e-3, "constant", "noise")


@pytest.fixture
def start_vae(tmp_path, synthetic_dir):
    """Start the command line in an empty folder; what still runs at the end is killed."""
    started = []

    def start(*arguments, **options) -> subprocess.Popen:
        defaults = ("--z", 3, "--dataset", "synthetic", "--data_dir", synthetic_dir)
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (*defaults, *arguments))],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / NAME


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def temporary_files(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def last_line(process, seconds=60):
    return process.communicate(timeout=seconds)[1].splitlines()[-1]


def test_signals_save_and_say_how_to_resume(start_vae, folder):
    process = start_vae("--iter_save", 20)
    wait_for(lambda: checkpoint.saved_steps(folder))
    process.send_signal(signal.SIGINT)
    assert "--resume 1 goes on from there" in last_line(process, 5)
    assert process.returncode == 130
    reached = checkpoint.load(checkpoint.state_path(folder))["step"]

    process = start_vae("--iter_save", 20, "--resume", 1)
    wait_for(lambda: checkpoint.saved_steps(folder)[-1] > reached)
    process.terminate()
    output, errors = process.communicate(timeout=5)
    assert process.returncode == 143
    assert f"Resuming at step {reached}" in output
    assert "--resume 1 goes on from there" in errors.splitlines()[-1]


def train_small(folder: Path, iter_max: int) -> None:
    """Train a small model on noise, saving all the time."""
    torch.set_num_threads(1)
    v1.HIDDEN = 8
    train.SECONDS_BETWEEN_STATES = 0
    train.evaluate.SUBSET_PASSES = 1
    pixels = torch.randint(256, (1000, 784), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.arange(10).repeat_interleave(1200).byte()
    images = data.Images("noise", pixels, labels[:1000], pixels.repeat(12, 1), labels)
    settings = SETTINGS._replace(iter_max=iter_max)
    with open(os.devnull, "w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        train.train(step.new_model(3, 0), images, folder, settings, iter_save=5, resume=True)


def test_a_hundred_kills_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(v1, "HIDDEN", 8)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["codebase.train", "torch._dynamo", "pytest"]
    )  # so that each starts fast
    folder, delays = tmp_path / "killed", random.Random(0)
    seen: dict[int, bytes] = {}
    during_saves = 0
    for _ in range(100):
        (folder / ".pid").unlink(missing_ok=True)
        process = context.Process(target=train_small, args=(folder, SETTINGS.iter_max))
        process.start()
        wait_for((folder / ".pid").exists)
        time.sleep(delays.uniform(0, 0.12))
        process.kill()
        process.join()
        during_saves += bool(temporary_files(folder))
        for number in set(checkpoint.saved_steps(folder)) - seen.keys():
            path = checkpoint.model_path(folder, number)
            checkpoint.load_model(VAE(z_dim=3), path)
            seen[number] = path.read_bytes()
        assert seen.keys() == set(checkpoint.saved_steps(folder))
        if checkpoint.state_path(folder).exists():
            state = checkpoint.load(checkpoint.state_path(folder))
            assert max(seen, default=0) - 5 <= state["step"]
    assert len(seen) > 20
    assert during_saves > 0

    # The killed run, gone on with, ends in the bytes of one that nobody touched.
    goal = max(seen) + 5
    for name in ("killed", "whole"):
        process = context.Process(target=train_small, args=(tmp_path / name, goal))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    for number in (*seen, goal):
        whole = checkpoint.model_path(tmp_path / "whole", number).read_bytes()
        assert whole == checkpoint.model_path(folder, number).read_bytes()


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(start_vae, folder):
    """A model of 2.6 MB finds room beside the earlier one; a training state of 8 MB does not."""
    folder.mkdir(parents=True)
    options = {}
    mounted = subprocess.run(
        ["sh", "-c", f"mount -t tmpfs -o size=6m tmpfs '{folder}'"], capture_output=True
    )
    if mounted.returncode:  # no file system to be had: limit the size of a file instead

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

        options["preexec_fn"] = limit
    try:
        earlier = checkpoint.model_path(folder, 2)
        checkpoint.save_model(VAE(z_dim=3), earlier)
        before = earlier.read_bytes()
        process = start_vae("--iter_max", 1, **options)
        sentence = last_line(process)
        assert process.returncode == 1
        reasons = ("No space left on device", "File too large")
        path = f"checkpoints/{NAME}/training-state.pt"
        assert sentence in [f"run_vae.py: {path}: {reason}" for reason in reasons]
        assert temporary_files(folder) == []
        assert earlier.read_bytes() == before
        checkpoint.load_model(VAE(z_dim=3), checkpoint.model_path(folder, 1))
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(start_vae, folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    process = start_vae("--iter_max", 1)
    assert "Permission denied" in last_line(process)
    assert process.returncode == 1


def test_a_second_run_of_the_name_is_refused_and_a_dead_one_is_no_obstacle(start_vae, folder):
    first = start_vae("--iter_save", 20)
    wait_for(lambda: checkpoint.saved_steps(folder))
    second = start_vae("--iter_max", 5)
    assert f"process {first.pid} is training in" in last_line(second)
    assert second.returncode == 1
    first.kill()
    first.wait()
    third = start_vae("--iter_save", 7)
    wait_for(lambda: checkpoint.saved_steps(folder)[0] == 7)
    assert third.poll() is None
