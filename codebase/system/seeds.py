"""Randomness: one seed for each purpose, all derived from the run's number."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

WEIGHTS, ORDER, STEP = range(3)


def seed_for(run: int, purpose: int, number: int = 0) -> int:
    """Derive a seed of 32 bits, all that PyTorch's CPU generator uses, for one purpose of a run.

    Two seeds of a run and a purpose never coincide, because they count on from a random start.

    Args:
        number: counts the epochs, or the parts of all batches, from 0 to 2**32 - 1.
    """
    start = np.random.SeedSequence((run, purpose)).generate_state(1, np.uint32)[0]
    return (int(start) + number) % 2**32


def seed_all(seed: int, device: torch.device) -> None:
    """Seed PyTorch's global generators, on the CPU and on the device."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)  # much faster than torch.manual_seed
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Restore the global random state after the block."""
    # fork_rng always saves the CPU state, and does not take "cpu" as a kind of device.
    devices = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices, device_type=kind):
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators for the block, and restore their state after it."""
    with preserved(device):
        seed_all(seed, device)
        yield
