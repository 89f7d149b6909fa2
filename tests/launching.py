"""Be a process that torchrun started, in a process that has imported PyTorch.

This module imports nothing of the project, so that a program can import its own copy.
"""

import os
import runpy
import sys
from pathlib import Path


def enter(folder: Path, rank: int, size: int, port: int) -> None:
    """Be process `rank` of `size`, with a store at the port, and write into output-`rank`."""
    os.chdir(folder)
    output = os.open(f"output-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {name: str(size) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "MKL_CBWR": "AUTO,STRICT"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "0"


def run_script(script: Path, arguments: list[str], folder: Path, rank: int, size: int, port: int):
    """Run a script as such a process."""
    enter(folder, rank, size, port)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
