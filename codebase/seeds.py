"""Randomness: one source a purpose, all of them from the run's number."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

WEIGHTS, ORDER, PIXELS, NOISE = range(4)


def seed_for(run: int, purpose: int, epoch: int = 0) -> int:
    """A seed of 64 bits for one purpose of a run, unrelated to those of all others."""
    return int(np.random.SeedSequence((run, purpose, epoch)).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the global random state as it was before."""
    on_cpu = device.type == "cpu"  # the CPU's state is always among those kept
    with torch.random.fork_rng(
        [] if on_cpu else [device], device_type="cuda" if on_cpu else device.type
    ):
        torch.manual_seed(seed)
        yield
