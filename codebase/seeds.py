"""Randomness: one source for each purpose, all of them from the run's number."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

WEIGHTS, ORDER, PIXELS, NOISE = range(4)


def seed_for(run: int, purpose: int, epoch: int = 0) -> int:
    """A seed of 64 bits for one purpose of a run, unrelated to those of all others."""
    return int(np.random.SeedSequence((run, purpose, epoch)).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the global random state as it was before."""
    on_cpu = device.type == "cpu"  # the CPU's state is always among those kept
    kept, kind = ([], "cuda") if on_cpu else ([device], device.type)
    with torch.random.fork_rng(kept, device_type=kind):
        if on_cpu:
            torch.default_generator.manual_seed(seed)  # and not those of all GPUs, too
        else:
            torch.manual_seed(seed)
        yield


def get_global_state(device: torch.device) -> Tensor:
    """The state of the device's global source of randomness, uint8 on the CPU."""
    if device.type == "cpu":
        return torch.get_rng_state()
    return torch.get_device_module(device).get_rng_state(device)


def set_global_state(state: Tensor, device: torch.device) -> None:
    """Put the device's global source of randomness into a state from `get_global_state`."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
