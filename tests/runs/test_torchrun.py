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
from launching import run_script
from torch.distributed import TCPStore
from torch.distributions import Normal

from codebase.data import binarize
from codebase.runs.metrics import read_metrics
from codebase.system.seeds import STEP, seed_for

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
    # Stand still once there is a model of step 100, until there is a file of the name "go".
    "waiting": """
import time
from pathlib import Path
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    def encode(self, x):
        while [*Path("checkpoints").glob("*/model-00100.pt")] and not Path("go").exists():
            time.sleep(0.01)
        return super().encode(x)
""",
    # Draw noise of their own, as does the latent, and keep it and their weights at each step.
    "drawing": """
import os, torch
from torch.distributions import Normal
from codebase import utils
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

KEPT = []

def keep(noise, *others):
    if torch.is_grad_enabled():
        KEPT.append([noise.detach().clone(), *others])
        torch.save(KEPT, f"kept-{os.environ['RANK']}")

def sample_gaussian(m, v):
    z = Normal(m, v.sqrt()).rsample()
    keep((z - m) / v.sqrt())
    return z

utils.sample_gaussian = sample_gaussian

class Encoder(tiny.Encoder):
    def encode(self, x):
        noise = torch.randn(len(x), 1)
        keep(noise, self.net.weight.detach().clone())
        m, v = super().encode(x)
        return m + 0.1 * noise, v
""",
    # Draw nothing at all, and neither do the pixels.
    "still": """
from codebase import train, utils
from codebase.models.nns.tiny import Decoder, Encoder

train.binarize = lambda images: images.gt(127).float()
utils.sample_gaussian = lambda m, v: m
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


@pytest.fixture(scope="session")
def networks(script) -> None:
    """The networks of this file, beside those of the script."""
    for name, code in NETWORKS.items():
        (script.parent / "codebase" / "models" / "nns" / f"{name}.py").write_text(code)


@pytest.fixture
def begin(forking, script, small, networks):
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
def launch(start, script, small, networks):
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


def test_each_process_draws_its_own_noise_and_all_have_the_same_weights(pair, folders):
    """However a solution draws: the latent by `rsample`, and the encoder noise of its own."""
    steps, kept = 3, []
    for folder in folders("once", "again"):
        outputs = pair(folder, "--nn", "drawing", "--iter_max", steps)
        assert [output.count("NELBO: ") for output in outputs] == [2, 0]
        kept.append([torch.load(folder / f"kept-{rank}") for rank in (0, 1)])
    first, second = kept[0]
    assert len(first) == len(second) == 2 * steps
    seen = set()
    for step in range(steps):
        for rank, of_rank in enumerate(kept[0]):
            (own, _), (latent,) = of_rank[2 * step : 2 * step + 2]
            torch.manual_seed(seed_for(0, STEP, step, rank))
            binarize(torch.zeros(100, 784, dtype=torch.uint8))
            assert torch.equal(own, torch.randn(100, 1))
            expected = Normal(torch.zeros(100, 3), torch.ones(100, 3)).rsample()
            torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)
            seen.add(own[0].item())
        assert torch.equal(first[2 * step][1], second[2 * step][1])  # the weights
    assert len(seen) == 2 * steps
    # The same number of processes gives the same bytes again.
    once, again = (run_folder(folder, "drawing") for folder in folders("once", "again"))
    assert results(once) == results(again)


def test_where_nothing_is_drawn_the_number_of_processes_changes_nothing_but_rounding(
    pair, start, script, small, folders
):
    """So the averaged gradient is that of the whole batch, and the rows are averages too.

    The two go on as one, and the one as two.
    """
    alone, two = folders("alone", "two")
    still = ("--nn", "still", "--iter_max", 100)
    more = ("--nn", "still", "--iter_max", 200, "--resume", 1)

    def one(folder, *arguments):
        process = start(script, *small, "--batch_size", 200, *arguments, cwd=folder)
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        return output

    one(alone, *still)
    pair(two, *still)
    for output in (one(two, *more), pair(alone, *more)[0]):
        assert "Resuming at step 100\n" in output
    for step in (100, 200):
        models = [
            torch.load(run_folder(folder, "still") / f"model-{step:05d}.pt")
            for folder in (alone, two)
        ]
        assert models[0].keys() == models[1].keys()
        for name in models[0]:
            torch.testing.assert_close(models[0][name], models[1][name], atol=1e-5, rtol=0)
    rows = [read_metrics(run_folder(folder, "still")) for folder in (alone, two)]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    assert [row.step for row in rows[0]] == [100] * 3 + [200] * 3
    for one, other in zip(*rows, strict=True):
        assert one.bounds == pytest.approx(other.bounds, rel=1e-4)


def test_runs_are_shared_out_and_the_table_has_them_all(pair, run_vae, small, folders, monkeypatch):
    two, alone = folders("two", "alone")
    in_the_way = run_folder(two, run=1)
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file")
    output, other = pair(two, "--iter_max", 20, "--runs", 4, status=1)
    assert (output.count("2 runs, 1 at a time, "), other) == (1, "")
    with open(run_folder(two).with_name(f"{run_folder(two).name}-0003_steps=20.csv")) as file:
        _, *table = csv.reader(file)
    assert [line[0] for line in table] == [*"023"]
    table = {int(run): cells for run, *cells in table}
    shown = [line.split(" | ") for line in output.splitlines() if line.startswith("| ")]
    names = [f"| {name}" for name in (*"0123", "average", "standard deviation")]
    assert [line[0] for line in shown[2:]] == names
    assert shown[3][1] == f"failed: checkpoints/{in_the_way.name}: File exists"  # of the second one
    monkeypatch.chdir(alone)
    for run in (0, 3):
        finished = run_vae(*small, "--batch_size", 200, "--iter_max", 20, "--run", run)
        assert finished.returncode == 0
        paths = [run_folder(folder, run=run) for folder in (alone, two)]
        assert results(paths[0]) == results(paths[1])
        on_test, on_all = read_metrics(paths[0])[-2:]
        values = [*on_test.bounds, on_all.nelbo]
        assert [*map(float, table[run][:4])] == values
        assert shown[2 + run][1:5] == [f"{value:.4f}" for value in values]


def test_a_killed_process_is_started_again_and_ends_in_the_same_bytes(launch, pair, folders):
    arguments = ("--nn", "waiting", "--iter_max", 200, "--iter_save", 100, "--resume", 1)
    untouched, killed = folders("untouched", "killed")
    (untouched / "go").touch()
    pair(untouched, *arguments)
    folder = run_folder(killed, "waiting")
    launcher = launch(killed, *arguments, options=("--max-restarts", 1))
    wait_for(lambda: (folder / "model-00100.pt").exists() or launcher.poll() is not None)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    (killed / "go").touch()
    output, errors = launcher.communicate()
    assert launcher.returncode == 0, errors
    assert "Resuming at step 100\n" in output
    assert results(folder) == results(run_folder(untouched, "waiting"))


def test_ctrl_c_at_torchrun_saves(launch, folders):
    [folder] = folders("two")
    process = launch(folder, "--iter_max", 10**6, "--iter_save", 100)
    wait_for((run_folder(folder) / "model-00100.pt").exists)
    process.send_signal(signal.SIGINT)  # torchrun's processes are not the terminal's
    _, errors = process.communicate()
    assert process.returncode != 0
    assert errors.count("with --resume 1 goes on from there") == 1
    state = torch.load(run_folder(folder) / "training-state.pt")
    assert f"interrupted at step {state['training']['step']};" in errors


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_ends_all_after_the_same_step(begin, folders, rank):
    [folder] = folders("two")
    with begin(folder, "--iter_max", 10**6, "--iter_save", 100) as (started, outputs):
        wait_for((run_folder(folder) / "model-00100.pt").exists)
        os.kill(started[rank].pid, signal.SIGTERM)
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
