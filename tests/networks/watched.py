"""The tiny networks, which leave a file that tells the process and its number of threads.

They stand still as long as there is a file of the name "wait".
"""

import os
import time
from pathlib import Path

import torch
from torch import Tensor

from codebase.models.nns import tiny

Decoder = tiny.Decoder


class Encoder(tiny.Encoder):
    """As in tiny."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As in tiny."""
        Path(f"process-{os.getpid()}-of-{torch.get_num_threads()}-threads").touch()
        while Path("wait").exists():
            time.sleep(0.01)
        return super().encode(x)

    forward = encode
