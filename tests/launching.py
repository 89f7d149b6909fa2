"""What torchrun does for a program, from a process in which PyTorch is imported already.

Nothing of the project is imported here: the program brings its own.
"""

import os
import runpy
import sys
from pathlib import Path


def run_script(script: Path, arguments: list[str], folder: Path, rank: int, size: int, port: int):
    """Be process `rank` of `size`, whose store is served at the port; write into output-`rank`."""
    os.chdir(folder)
    output = os.open(f"output-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {name: str(size) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
