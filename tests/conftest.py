"""What several tests share: where the images are, and the command line."""

import os

# Before torch: tests run side by side, and threads of several processes would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from codebase import data

SCRIPT = Path(__file__).parent.parent / "run_vae.py"


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory) -> Path:
    """A data folder with the synthetic digits, drawn once for all processes of the session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        data.load_synthetic(folder)
    return folder


@pytest.fixture(scope="session")
def synthetic_images(synthetic_dir) -> data.Images:
    return data.load_synthetic(synthetic_dir)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The data folder with real MNIST that the environment names."""
    if not os.environ.get("MNIST_DIR"):
        pytest.skip("MNIST_DIR is not set")
    return Path(os.environ["MNIST_DIR"]).resolve()


@pytest.fixture
def run_vae(tmp_path):
    """Run the command line in an empty folder, without a network."""

    def run(*arguments, cwd=tmp_path) -> subprocess.CompletedProcess:
        # Nobody listens on this port: every attempt to reach the network is refused at once.
        nowhere = "http://127.0.0.1:9"
        environment = os.environ | {"http_proxy": nowhere, "https_proxy": nowhere}
        return subprocess.run(
            [sys.executable, SCRIPT, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
