"""Fixtures of several tests: the images, and the command line in this process or another."""

import os

# Set before torch is imported: tests run in parallel, and too many threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As in processes of the command line, so that models have the same bytes here and there.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# The tests use the CPU, unless CUDA_VISIBLE_DEVICES names a GPU.
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

from codebase import arguments
from codebase.data import Images
from codebase.datasets import synthetic
from codebase.datasets.loading import load
from codebase.models import nns
from codebase.system.signals import ENDING
from run_vae import main

# These modules have fixtures, and are imported before pytest takes them as plugins.
pytest.register_assert_rewrite("drawn", "few")

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "run_vae.py"
NETWORKS = ROOT / "tests" / "networks"
# Numbers of synthetic digits in these tests, a hundredth of the usual ones.
FEWER = {"TRAIN_COUNTS": [60] * 10, "TEST_COUNTS": [30] * 10}
# Nobody listens on this port: every attempt to reach the network is refused at once.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def all_synthetic_images() -> Images:
    return load("synthetic", Path())


@pytest.fixture(scope="session")
def synthetic_images() -> Images:
    """Synthetic digits, fewer than usual."""
    with pytest.MonkeyPatch.context() as patch:
        for name, counts in FEWER.items():
            patch.setattr(synthetic, name, counts)
        return load("synthetic", Path())


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST, from the environment variable MNIST_DIR."""
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
    for owner, name in ((nns, "__path__"), (arguments, "NETWORKS")):
        monkeypatch.setattr(owner, name, [*getattr(owner, name), str(NETWORKS)])
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
    """Copy the program, with small networks added and fewer synthetic digits.

    Returns:
        the path of its run_vae.py.
    """
    shutil.copytree(ROOT / "codebase", folder / "codebase")
    shutil.copytree(NETWORKS, folder / "codebase/models/nns", dirs_exist_ok=True)
    draw_fewer_digits(folder)
    return Path(shutil.copy(SCRIPT, folder))


def draw_fewer_digits(project: Path) -> None:
    """Reduce the number of synthetic digits in a copy of the project."""
    with open(project / "codebase/datasets/synthetic.py", "a") as file:
        file.writelines(f"\n{name} = {counts}\n" for name, counts in FEWER.items())


@pytest.fixture(scope="session")
def forking() -> ForkServerContext:
    """Starts processes quickly, from one in which PyTorch is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "pytest", "tqdm", "matplotlib.pyplot"])
    return context


def usual_signals() -> None:
    """Give signals their default actions, as a terminal's shell does.

    A program inherits ignored signals: a background command of a script ignores Ctrl-C.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


@pytest.fixture
def stray():
    """Collects the signals for which no other handler is installed."""
    received = []
    before = {n: signal.signal(n, lambda n, _: received.append(n)) for n in ENDING}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(tmp_path):
    """Start Python programs in an empty folder; those that still run at the end are killed."""
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
    """Wait until the condition holds; the limit is generous, for slow machines."""
    deadline = time.monotonic() + 60 * minutes
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
