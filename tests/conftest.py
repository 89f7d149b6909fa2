"""What several tests share: where the images are, and the command line in and out of process."""

import os

# Before torch: tests run side by side, and threads of several processes would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The tests are of the CPU, and the same on every machine, unless a GPU is asked for by its number.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch

from codebase.data import Images
from codebase.datasets import synthetic
from codebase.datasets.loading import load_synthetic
from codebase.models import nns
from codebase.system.signals import ENDING
from run_vae import main

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "run_vae.py"
NETWORKS = ROOT / "tests" / "networks"
# How many synthetic digits the program draws here, a hundredth of what it usually does.
FEWER = {"TRAIN_COUNTS": [60] * 10, "TEST_COUNTS": [30] * 10}
# Nobody listens on this port: every attempt to reach the network is refused at once.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def all_synthetic_images() -> Images:
    return load_synthetic()


@pytest.fixture(scope="session")
def synthetic_images() -> Images:
    """Some synthetic digits, as the program draws them here."""
    with pytest.MonkeyPatch.context() as patch:
        for name, counts in FEWER.items():
            patch.setattr(synthetic, name, counts)
        return load_synthetic()


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The data folder with real MNIST that the environment names."""
    if not os.environ.get("MNIST_DIR"):
        pytest.skip("MNIST_DIR is not set")
    return Path(os.environ["MNIST_DIR"]).resolve()


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Arguments for a run of a second, on the synthetic digits and with small networks."""
    return "--dataset", "synthetic", "--nn", "tiny", "--z", "3", "--iter_max", "30"


@pytest.fixture
def run_vae(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty folder, without a network."""
    monkeypatch.chdir(tmp_path)
    for name, counts in FEWER.items():
        monkeypatch.setattr(synthetic, name, counts)
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
    for name, nowhere in OFFLINE.items():
        monkeypatch.setenv(name, nowhere)

    def run(*arguments) -> subprocess.CompletedProcess:
        capsys.readouterr()
        arguments = [str(argument) for argument in arguments]
        return subprocess.CompletedProcess(arguments, main(arguments), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def script(tmp_path_factory) -> Path:
    """The command line of a copy of the project with small networks and fewer digits."""
    return copy_project(tmp_path_factory.mktemp("project"))


def copy_project(folder: Path) -> Path:
    """Copy the program, add small networks, and have it draw fewer digits.

    Returns:
        the path of its run_vae.py.
    """
    shutil.copytree(ROOT / "codebase", folder / "codebase")
    shutil.copytree(NETWORKS, folder / "codebase/models/nns", dirs_exist_ok=True)
    draw_fewer_digits(folder)
    return Path(shutil.copy(SCRIPT, folder))


def draw_fewer_digits(project: Path) -> None:
    """Have a copy of the project draw fewer synthetic digits."""
    with open(project / "codebase/datasets/synthetic.py", "a") as file:
        file.writelines(f"\n{name} = {counts}\n" for name, counts in FEWER.items())


@pytest.fixture(scope="session")
def forking() -> ForkServerContext:
    """Starts processes from one in which PyTorch is imported, so that they are there at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "pytest", "tqdm", "matplotlib.pyplot"])
    return context


def usual_signals() -> None:
    """Handle signals as the shell of a terminal starts a program, whatever the tests' own did.

    A program inherits which signals are ignored: in a script, a command with & ignores Ctrl-C.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


@pytest.fixture
def stray():
    """The signals that reach this process and that nothing else collects."""
    received = []
    before = {n: signal.signal(n, lambda n, _: received.append(n)) for n in ENDING}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(tmp_path):
    """Start a Python program in an empty folder; what is left of it at the end is killed."""
    started = []

    def start(*arguments, **options) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            **dict(cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            | dict(env=os.environ | OFFLINE, preexec_fn=usual_signals, start_new_session=True)
            | options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], minutes: float = 5) -> None:
    """Wait until something has happened, however slow the machine is."""
    deadline = time.monotonic() + 60 * minutes
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
