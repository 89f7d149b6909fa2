"""What concerns the machine: its devices and its processor's modes."""

import os

import torch

from codebase.environment import launched
from codebase.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" a GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count())), "cpu"]
    if name == "auto":
        name = devices[0]
    _, size, local_rank = launched()
    if size > 1 and name == devices[0] != "cpu":  # a GPU for each process of torchrun
        name = f"{name}:{local_rank}"
    if name not in devices:
        known = ", ".join(devices)
        raise DeviceError(f"argument --device: this machine has no device {name!r}, only {known}")
    return torch.device(name)


def prepare_processor(threads: int | None = None) -> None:
    """Set how this process computes on the CPU. To be called before anything is computed.

    Args:
        threads: how many; else what PyTorch chooses, or under torchrun a share of the cores.
    """
    # Adam's averages of gradients that have become zero fade into denormal numbers, with which the
    # processor is many times slower. Threads inherit the mode when they start, hence the order.
    torch.set_flush_denormal(True)
    if threads is None and launched()[1] > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        # That is what torchrun sets for each process, where the user has set nothing.
        known = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
        threads = max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))
    if threads is not None:
        torch.set_num_threads(threads)
