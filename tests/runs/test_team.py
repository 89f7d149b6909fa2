"""Several processes under torchrun, over Gloo on the CPU."""

import csv
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from codebase.distributed import Team
from codebase.errors import DataError
from conftest import wait_for
from launching import run_script
from torch.distributed import TCPStore

from codebase.settings import Settings
from codebase.train import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo and /proc of Linux"),
]
# What torchrun tells the only process of one.
ONE_PROCESS = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
ONE_PROCESS |= {"RANK": "0", "LOCAL_RANK": "0"}
NAME = "model=vae_nn=tiny_z=03_batch_size=200_dataset=synthetic_run=0000"
FAILING = """
import os
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    calls = 0
    def encode(self, x):
        self.calls += 1
        if self.calls > 5 and os.environ.get("RANK") == "1":
            raise OSError(28, "No space left on device", "somewhere")
        return super().encode(x)
"""
# Stands still once there is a model of step 100, until there is a file of the name "go".
WAITING = """
import time
from pathlib import Path
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    def encode(self, x):
        while [*Path("checkpoints").glob("*/model-00100.pt")] and not Path("go").exists():
            time.sleep(0.01)
        return super().encode(x)
"""


@pytest.fixture
def launch(start, script, small, tmp_path):
    """Start the command line under torchrun, in a folder of its own."""

    def launch(folder, processes, *arguments, options=()):
        (tmp_path / folder).mkdir(exist_ok=True)
        return start(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes),
            *(*options, script, *small, "--batch_size", 200, *arguments),
            cwd=tmp_path / folder,
        )

    return launch


@pytest.fixture
def pair(forking, script, small, tmp_path):
    """Run two processes as torchrun would, to their end, in a folder of their own."""

    def pair(folder, *arguments, status=0):
        folder = tmp_path / folder
        folder.mkdir(exist_ok=True)
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        arguments = [str(argument) for argument in (*small, "--batch_size", 200, *arguments)]
        processes = [
            forking.Process(
                target=run_script, args=(script, arguments, folder, rank, 2, store.port)
            )
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        outputs = [(folder / f"output-{rank}").read_text() for rank in (0, 1)]
        assert [process.exitcode for process in processes] == [status] * 2, "\n".join(outputs)
        return outputs

    return pair


def model(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / NAME / f"model-{step:05d}.pt"


def assert_close(a: Path, b: Path) -> None:
    a, b = torch.load(a), torch.load(b)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=0)


def workers(launcher) -> list[int]:
    """The processes that torchrun has started, by their rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(number) for number in children]


def test_the_number_of_processes_changes_nothing_but_rounding(
    pair, run_vae, small, tmp_path, monkeypatch
):
    assert [output.count("NELBO: ") for output in pair("two", "--iter_max", 10)] == [2, 0]
    for folder, environment in [("alone", {}), ("one", ONE_PROCESS)]:
        (tmp_path / folder).mkdir()
        os.chdir(tmp_path / folder)
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            assert run_vae(*small, "--batch_size", 200, "--iter_max", 10).returncode == 0
    assert model(tmp_path / "one", 10).read_bytes() == model(tmp_path / "alone", 10).read_bytes()
    assert_close(model(tmp_path / "two", 10), model(tmp_path / "one", 10))
    # More steps: the two go on as one, and the one as two.
    os.chdir(tmp_path / "two")
    more = ("--iter_max", 200, "--resume", 1)
    assert run_vae(*small, "--batch_size", 200, *more).returncode == 0
    pair("one", *more)
    assert_close(model(tmp_path / "two", 200), model(tmp_path / "one", 200))
    tables = []
    for folder in ("one", "two"):
        with open(model(tmp_path / folder, 200).with_name("metrics.csv"), newline="") as file:
            tables.append(list(csv.reader(file)))
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
    for one, two in zip(tables[0][1:], tables[1][1:], strict=True):
        assert [float(x) for x in one[2:]] == pytest.approx([float(x) for x in two[2:]], rel=1e-4)


def test_runs_are_shared_out(pair, run_vae, small):
    output = pair("two", "--iter_max", 20, "--runs", 2)[0]
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line[0:1] == "|"]
    assert [row[0] for row in rows[2:]] == [*"01", "average", "standard deviation"]
    for run, row in enumerate(rows[2:4]):
        alone = run_vae(*small, "--batch_size", 200, "--iter_max", 20, "--run", run)
        subset, everything = re.findall(r"NELBO: (\S+)\. KL: (\S+)\. REC: (\S+) ", alone.stdout)
        assert row[1:5] == [*subset, everything[0]]
        path = Path("checkpoints", NAME.replace("run=0000", f"run=000{run}"), "model-00020.pt")
        assert Path("two", path).read_bytes() == path.read_bytes()


def test_a_killed_process_is_started_again_and_ends_in_the_same_bytes(
    launch, pair, script, tmp_path
):
    (script.parent / "codebase" / "models" / "nns" / "waiting.py").write_text(WAITING)
    arguments = ("--nn", "waiting", "--iter_max", 200, "--iter_save", 100, "--resume", 1)
    for name in ("untouched", "killed"):
        (tmp_path / name).mkdir()
    (tmp_path / "untouched" / "go").touch()
    pair("untouched", *arguments)
    folders = [
        tmp_path / name / "checkpoints" / NAME.replace("tiny", "waiting")
        for name in ("untouched", "killed")
    ]
    killed = launch("killed", 2, *arguments, options=("--max-restarts", 1))
    wait_for(lambda: (folders[1] / "model-00100.pt").exists() or killed.poll() is not None)
    os.kill(workers(killed)[1], signal.SIGKILL)
    (tmp_path / "killed" / "go").touch()
    output, errors = killed.communicate()
    assert killed.returncode == 0, errors
    assert "Resuming at step 100\n" in output
    for name in ["model-00100.pt", "model-00200.pt", "metrics.csv"]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_ctrl_c_at_torchrun_saves(launch, tmp_path):
    process = launch("two", 2, "--iter_max", 10**6, "--iter_save", 100)
    wait_for(lambda: model(tmp_path / "two", 100).exists())
    process.send_signal(signal.SIGINT)  # torchrun's processes are not the terminal's
    _, errors = process.communicate()
    assert process.returncode != 0
    assert errors.count("with --resume 1 goes on from there") == 1
    state = torch.load(model(tmp_path / "two", 100).with_name("training-state.pt"))
    assert f"interrupted at step {state['step']};" in errors


def test_a_process_that_fails_ends_the_others(pair, script):
    (script.parent / "codebase" / "models" / "nns" / "failing.py").write_text(FAILING)
    first, second = pair("two", "--iter_max", 10**6, "--nn", "failing", status=1)
    assert second == "run_vae.py, process 1: somewhere: No space left on device\n"
    advice = "its own message says why; with --resume 1 the run goes on"
    assert first.endswith(
        f"\nrun_vae.py, process 0: ended, because another process has ended; {advice}\n"
    )
    assert "Traceback" not in first


def test_what_cannot_be_shared_is_said(synthetic_images, run_vae, monkeypatch):
    with pytest.raises(DataError, match="2 processes cannot share --batch_size 201 evenly; choose"):
        train(Settings(batch_size=201), synthetic_images, torch.device("cpu"), team=Team(0, 2))
    for name, value in (ONE_PROCESS | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    finished = run_vae("--runs", 4, "--jobs", 2)
    assert finished.returncode == 2
    assert "argument --jobs: torchrun decides how many runs" in finished.stderr
