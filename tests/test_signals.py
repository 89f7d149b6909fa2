"""Ctrl-C while the program starts."""

import subprocess
import sys

import pytest
from conftest import SCRIPT

# Runs the script, and presses Ctrl-C when it imports a certain module.
PROGRAM = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == module:
            print("pressed", flush=True)
            os.kill(os.getpid(), signal.SIGINT)

module, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("module", ["torch.nn", "torch._dynamo.config", "torchvision.models"])
def test_an_interrupted_import_ends_without_a_traceback(synthetic_dir, tmp_path, module):
    download = module.startswith("torchvision")
    data = [] if download else ["--dataset", "synthetic", "--data_dir", synthetic_dir]
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, SCRIPT, "--iter_max", "5", *data],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "pressed" in finished.stdout
    assert finished.returncode == 130
    assert finished.stderr == ""
    if download:
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]
