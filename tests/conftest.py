"""Fixtures of several tests: the images, and the command line in this process or another."""

import os

# Set before torch is imported: tests run in parallel, and too many threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As in processes of the command line, so that models have the same bytes here and there.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# The tests use the CPU, unless CUDA_VISIBLE_DEVICES names a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import atexit
import gc
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from codebase import arguments
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
def all_synthetic_images():
    from codebase.datasets.loading import load

    return load("synthetic", Path())


@pytest.fixture(scope="session")
def synthetic_images():
    """Synthetic digits, fewer than usual."""
    from codebase.datasets.loading import load

    with pytest.MonkeyPatch.context() as patch:
        for name, counts in FEWER.items():
            patch.setattr(f"codebase.datasets.synthetic.{name}", counts)
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
def place(tmp_path, monkeypatch, stray) -> Path:
    """An empty current folder, where the small networks are known and measuring takes no time."""
    from codebase.models import nns

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
    monkeypatch.setattr("codebase.evaluate.SUBSET_PASSES", 2)
    monkeypatch.setattr("codebase.runs.run_writer.git_commit", lambda: None)  # starts a process
    return tmp_path


@pytest.fixture
def run_vae(tmp_path, monkeypatch):
    """Run the command line in this process, in an empty folder, without a network."""
    return command_line(tmp_path, monkeypatch)


def command_line(folder: Path, patch: pytest.MonkeyPatch) -> Callable:
    """Go to a folder, and return a function that runs the command line in this process."""
    from codebase.models import nns

    patch.chdir(folder)
    for name, counts in FEWER.items():
        patch.setattr(f"codebase.datasets.synthetic.{name}", counts)
    for owner, name in ((nns, "__path__"), (arguments, "NETWORKS")):
        patch.setattr(owner, name, [*getattr(owner, name), str(NETWORKS)])
    for name, nowhere in OFFLINE.items():
        patch.setenv(name, nowhere)

    def run(*arguments) -> subprocess.CompletedProcess:
        arguments = [str(argument) for argument in arguments]
        with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
            status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def script(tmp_path_factory) -> Path:
    """The command line of a copy of the project with small networks and fewer digits."""
    return copy_project(tmp_path_factory.mktemp("project"))


def copy_project(folder: Path) -> Path:
    """Copy the program, with small networks and fewer digits; return the path of run_vae.py."""
    shutil.copytree(ROOT / "codebase", folder / "codebase")
    shutil.copytree(NETWORKS, folder / "codebase/models/nns", dirs_exist_ok=True)
    draw_fewer_digits(folder)
    return Path(shutil.copy(SCRIPT, folder))


def draw_fewer_digits(project: Path) -> None:
    """Reduce the number of synthetic digits in a copy of the project."""
    with open(project / "codebase/datasets/synthetic.py", "a") as file:
        file.writelines(f"\n{name} = {counts}\n" for name, counts in FEWER.items())


@pytest.fixture
def torchrun(monkeypatch):
    """Sets the environment of a process that torchrun starts, by default the first of two."""

    def torchrun(rank=0, size=2, machines=1):
        local = size // machines
        names = {"RANK": rank, "LOCAL_RANK": rank % local, "WORLD_SIZE": size}
        names |= {"LOCAL_WORLD_SIZE": local, "TORCHELASTIC_RUN_ID": "none"}
        for name, value in (names | {"TORCHELASTIC_RESTART_COUNT": 0}).items():
            monkeypatch.setenv(name, str(value))

    return torchrun


@pytest.fixture(scope="session")
def forking() -> ForkServerContext:
    """Starts processes quickly, from one in which PyTorch is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "pytest", "tqdm", "matplotlib.pyplot"])
    return context


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

    def usual_signals() -> None:  # A program would inherit ignored signals.
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

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
    import torch  # here, because the process that distributes the tests does not need it

    torch.manual_seed(0)


def pytest_sessionfinish():
    """Spare a busy machine the last garbage collection: execnet waits only five seconds for it."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # Libraries of PyTorch report objects that are left.
