"""The tiny networks, which create a file named after the process and its number of threads.

They wait as long as a file named "wait" exists.
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
