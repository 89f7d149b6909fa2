"""Several processes under torchrun, over Gloo on the CPU."""

import csv
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import copy_project, wait_for
from launching import run_script
from torch.distributed import TCPStore
from training import results_in

from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo and /proc of Linux"),
]
# Files of networks for a copy of the project.
NETWORKS = {
    "failing": """
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
""",
    # Wait once the model of step 100 exists, until a file named "go" exists. A file shows which
    # process measures bounds.
    "waiting": """
import os, time, torch
from pathlib import Path
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    def encode(self, x):
        while [*Path("checkpoints").glob("*/model-00100.pt")] and not Path("go").exists():
            time.sleep(0.01)
        if not torch.is_grad_enabled():
            Path(f"measured-{os.environ['RANK']}").touch()
        return super().encode(x)
""",
}


@pytest.fixture
def folders(tmp_path):
    """Make folders of these names."""

    def folders(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.mkdir(exist_ok=True)
        return paths

    return folders


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    """The command line of a copy of the project with the networks of this file."""
    script = copy_project(tmp_path_factory.mktemp("torchrun"))
    for name, code in NETWORKS.items():
        (script.parent / "codebase" / "models" / "nns" / f"{name}.py").write_text(code)
    return script


@pytest.fixture
def begin(forking, script, small):
    """Start two processes as torchrun does, and wait for their end after the block."""

    @contextmanager
    def begin(folder, *arguments):
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        arguments = [str(argument) for argument in (*small, "--batch_size", 200, *arguments)]
        started = [
            forking.Process(
                target=run_script, args=(script, arguments, folder, rank, 2, store.port)
            )
            for rank in (0, 1)
        ]
        for process in started:
            process.start()
        outputs = []
        try:
            yield started, outputs
            for process in started:
                process.join()
        finally:
            for process in started:
                process.kill()
        outputs += [(folder / f"output-{rank}").read_text() for rank in (0, 1)]

    return begin


@pytest.fixture
def pair(begin):
    """Run two processes as torchrun does, and return their outputs."""

    def pair(folder, *arguments, statuses=(0, 0)):
        with begin(folder, *arguments) as (started, outputs):
            pass
        assert tuple(process.exitcode for process in started) == statuses, "\n".join(outputs)
        return outputs

    return pair


@pytest.fixture
def launch(start, script, small):
    """Start the command line under torchrun."""

    def launch(folder, *arguments):
        options = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 1)
        torchrun = ("-m", "torch.distributed.run", *options)
        return start(*torchrun, script, *small, "--batch_size", 200, *arguments, cwd=folder)

    return launch


def run_in(folder: Path, nn: str = "tiny", run: int = 0) -> RunFolder:
    settings = Settings(nn, 3, batch_size=200, dataset="synthetic", run=run)
    return RunFolder(settings, folder / "checkpoints")


def test_processes_share_the_runs_and_the_table_has_all_of_them(
    pair, run_vae, small, folders, monkeypatch
):
    two, alone = folders("two", "alone")
    in_the_way = run_in(two, run=1).path
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file")
    output, other = pair(two, "--iter_max", 20, "--runs", 3, statuses=(1, 0))
    assert (output.count("2 runs, 1 at a time, "), other) == (1, "")
    with open(f"{run_in(two).path}-0002_steps=20.csv") as file:
        _, *table = csv.reader(file)
    assert [line[0] for line in table] == [*"02"]
    table = {int(run): cells for run, *cells in table}
    shown = [line.split(" | ") for line in output.splitlines() if line.startswith("| ")]
    names = [f"| {name}" for name in (*"012", "average", "standard deviation")]
    assert [line[0] for line in shown[2:]] == names
    assert shown[3][1] == f"failed: checkpoints/{in_the_way.name}: File exists"
    monkeypatch.chdir(alone)
    for run in (0, 2):
        finished = run_vae(*small, "--batch_size", 200, "--iter_max", 20, "--run", run)
        assert finished.returncode == 0
        single, shared = (run_in(folder, run=run) for folder in (alone, two))
        assert results_in(single.path) == results_in(shared.path)
        subset, everything = read_metrics(single)[-2:]
        values = [*subset.bounds[:3], everything.bounds.nelbo]
        assert [*map(float, table[run][:4])] == values
        assert shown[2 + run][1:5] == [f"{value:.2f}" for value in values]


def test_torchrun_restarts_a_killed_process_and_the_run_ends_in_the_same_bytes(
    launch, pair, folders
):
    arguments = ("--nn", "waiting", "--iter_save", 100, "--resume", 1)
    untouched, killed = folders("untouched", "killed")
    (untouched / "go").touch()
    first, second = pair(untouched, *arguments, "--iter_max", 200)
    assert (first.count("NELBO: "), second) == (2, "")
    assert [path.name for path in untouched.glob("measured-*")] == ["measured-0"]
    run = run_in(killed, "waiting")
    launcher = launch(killed, *arguments, "--iter_max", 10**6)
    wait_for(lambda: run.model(100).exists() or launcher.poll() is not None)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    (killed / "go").touch()
    wait_for(lambda: run.model(200).exists() or launcher.poll() is not None)
    launcher.send_signal(signal.SIGINT)
    output, errors = launcher.communicate()
    assert launcher.returncode != 0
    assert "Resuming at step 100\n" in output
    state = torch.load(run.state)
    assert errors.count(f"interrupted at step {state['training']['step']};") == 1
    expected = run_in(untouched, "waiting")
    for step in (100, 200):
        assert run.model(step).read_bytes() == expected.model(step).read_bytes()
    rows, found = ([row[:-1] for row in read_metrics(folder)] for folder in (expected, run))
    assert found[: len(rows)] == rows


def test_a_signal_to_the_second_process_ends_both_with_one_message(begin, folders):
    [folder] = folders("two")
    with begin(folder, "--iter_max", 10**6, "--iter_save", 100) as (started, outputs):
        wait_for(run_in(folder).model(100).exists)
        os.kill(started[1].pid, signal.SIGTERM)
    assert [process.exitcode for process in started] == [128 + signal.SIGTERM] * 2
    state = torch.load(run_in(folder).state)
    message = f"run_vae.py, process 0: interrupted at step {state['training']['step']}; "
    assert outputs[0].splitlines()[-1].startswith(message)
    assert outputs[1] == ""


def test_a_process_that_fails_ends_the_others(pair, folders):
    [folder] = folders("two")
    first, second = pair(folder, "--iter_max", 10**6, "--nn", "failing", statuses=(1, 1))
    assert second == "run_vae.py, process 1: somewhere: No space left on device\n"
    assert first.splitlines()[-1].startswith("run_vae.py, process 0: another process has ended")
    assert "Traceback" not in first
