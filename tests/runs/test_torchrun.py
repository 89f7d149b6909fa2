"""Several processes under torchrun, over Gloo on the CPU."""

import csv
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import wait_for
from launching import COUNTS, run_script, with_few_digits
from torch.distributed import TCPStore

from codebase.datasets import synthetic
from codebase.runs.metrics import read_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo and /proc of Linux"),
]
# Networks that do not run in this process: each is a file beside those of the project.
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
    # Stand still once there is a model of step 100, until there is a file of the name "go". A file
    # tells who has measured something.
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
    """Folders of their own for several starts, by the names that are given."""

    def folders(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.mkdir(exist_ok=True)
        return paths

    return folders


@pytest.fixture(scope="module")
def script(script, tmp_path_factory) -> Path:
    """The command line with the networks of this file, and with few digits, soon drawn."""
    quick = with_few_digits(script, tmp_path_factory.mktemp("torchrun") / "project")
    for name, code in NETWORKS.items():
        (quick.parent / "codebase" / "models" / "nns" / f"{name}.py").write_text(code)
    return quick


@pytest.fixture
def begin(forking, script, small):
    """Start two processes as torchrun would, and let them end; give them and what they print."""

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
    """Run two processes as torchrun would, to their end; give what they print."""

    def pair(folder, *arguments, status=0):
        with begin(folder, *arguments) as (started, outputs):
            pass
        assert [process.exitcode for process in started] == [status] * 2, "\n".join(outputs)
        return outputs

    return pair


@pytest.fixture
def launch(start, script, small):
    """Start the command line under torchrun."""

    def launch(folder, *arguments, options=()):
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *options)
        return start(*torchrun, script, *small, "--batch_size", 200, *arguments, cwd=folder)

    return launch


def run_folder(folder: Path, nn: str = "tiny", run: int = 0) -> Path:
    name = f"model=vae_nn={nn}_z=03_batch_size=200_dataset=synthetic_run={run:04d}"
    return folder / "checkpoints" / name


def results(folder: Path) -> dict[str, object]:
    """All that a run has given: the bytes of its models, and its rows but for the seconds."""
    models = {path.name: path.read_bytes() for path in folder.glob("model-*.pt")}
    assert models
    return models | {"rows": [row[:-1] for row in read_metrics(folder)]}


def test_runs_are_shared_out_and_the_table_has_them_all(pair, run_vae, small, folders, monkeypatch):
    two, alone = folders("two", "alone")
    in_the_way = run_folder(two, run=1)
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file")
    output, other = pair(two, "--iter_max", 20, "--runs", 3, status=1)
    assert (output.count("2 runs, 1 at a time, "), other) == (1, "")
    with open(run_folder(two).with_name(f"{run_folder(two).name}-0002_steps=20.csv")) as file:
        _, *table = csv.reader(file)
    assert [line[0] for line in table] == [*"02"]
    table = {int(run): cells for run, *cells in table}
    shown = [line.split(" | ") for line in output.splitlines() if line.startswith("| ")]
    names = [f"| {name}" for name in (*"012", "average", "standard deviation")]
    assert [line[0] for line in shown[2:]] == names
    assert shown[3][1] == f"failed: checkpoints/{in_the_way.name}: File exists"  # of the second one
    monkeypatch.chdir(alone)
    for name, counts in COUNTS.items():
        monkeypatch.setattr(synthetic, name, counts)
    for run in (0, 2):
        finished = run_vae(*small, "--batch_size", 200, "--iter_max", 20, "--run", run)
        assert finished.returncode == 0
        paths = [run_folder(folder, run=run) for folder in (alone, two)]
        assert results(paths[0]) == results(paths[1])
        on_test, on_all = read_metrics(paths[0])[-2:]
        values = [*on_test.bounds, on_all.nelbo]
        assert [*map(float, table[run][:4])] == values
        assert shown[2 + run][1:5] == [f"{value:.4f}" for value in values]


def test_a_killed_process_is_started_again_in_the_same_bytes_and_ctrl_c_saves(
    launch, pair, folders
):
    arguments = ("--nn", "waiting", "--iter_save", 100, "--resume", 1)
    untouched, killed = folders("untouched", "killed")
    (untouched / "go").touch()
    first, second = pair(untouched, *arguments, "--iter_max", 200)
    assert (first.count("NELBO: "), second) == (2, "")
    assert [path.name for path in untouched.glob("measured-*")] == ["measured-0"]
    folder = run_folder(killed, "waiting")
    launcher = launch(killed, *arguments, "--iter_max", 10**6, options=("--max-restarts", 1))
    wait_for(lambda: (folder / "model-00100.pt").exists() or launcher.poll() is not None)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    (killed / "go").touch()
    wait_for(lambda: (folder / "model-00200.pt").exists() or launcher.poll() is not None)
    launcher.send_signal(signal.SIGINT)  # torchrun's processes are not the terminal's
    output, errors = launcher.communicate()
    assert launcher.returncode != 0
    assert "Resuming at step 100\n" in output
    assert errors.count("with --resume 1 goes on from there") == 1
    state = torch.load(folder / "training-state.pt")
    assert f"interrupted at step {state['training']['step']};" in errors
    expected, found = results(run_folder(untouched, "waiting")), results(folder)
    for name in ("model-00100.pt", "model-00200.pt"):
        assert found[name] == expected[name]
    rows = expected["rows"]
    assert found["rows"][: len(rows)] == rows


def test_a_signal_to_the_second_process_ends_both_with_one_sentence(begin, folders):
    [folder] = folders("two")
    with begin(folder, "--iter_max", 10**6, "--iter_save", 100) as (started, outputs):
        wait_for((run_folder(folder) / "model-00100.pt").exists)
        os.kill(started[1].pid, signal.SIGTERM)
    assert [process.exitcode for process in started] == [128 + signal.SIGTERM] * 2
    state = torch.load(run_folder(folder) / "training-state.pt")
    sentence = f"run_vae.py, process 0: interrupted at step {state['training']['step']}; "
    assert outputs[0].splitlines()[-1].startswith(sentence)
    assert outputs[1] == ""  # the first one says it for all


def test_a_process_that_fails_ends_the_others(pair, folders):
    [folder] = folders("two")
    first, second = pair(folder, "--iter_max", 10**6, "--nn", "failing", status=1)
    assert second == "run_vae.py, process 1: somewhere: No space left on device\n"
    advice = "its own message says why; with --resume 1 the run goes on"
    assert first.endswith(
        f"\nrun_vae.py, process 0: ended, because another process has ended; {advice}\n"
    )
    assert "Traceback" not in first
