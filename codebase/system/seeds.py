"""Randomness: a seed for each purpose, all of them from the run's number."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

WEIGHTS, ORDER, STEP = range(3)


def seed_for(run: int, purpose: int, number: int = 0, process: int = 0) -> int:
    """A seed of 64 bits for one purpose of a run, unrelated to those of all others.

    The number is that of the epoch or the step, and the process one of those that share a batch.
    """
    entropy = np.random.SeedSequence((run, purpose, number, process))
    return int(entropy.generate_state(1, np.uint64)[0])


def seed_all(seed: int, device: torch.device) -> None:
    """Seed what draws without a generator of its own, on the CPU and on the device."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)  # takes a fiftieth of the time of torch.manual_seed
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the random state as it was before."""
    on_cpu = device.type == "cpu"  # whose state is always among those kept
    devices, kind = ([], "cuda") if on_cpu else ([device], device.type)
    with torch.random.fork_rng(devices, device_type=kind):
        seed_all(seed, device)
        yield
