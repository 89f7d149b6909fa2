"""What computes: the environment that PyTorch reads, the processor's modes, and the device.

PyTorch is imported inside the functions, since it reads the environment when it is imported.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from codebase.system.errors import UserError

if TYPE_CHECKING:  # see above
    import torch


def place_in_team() -> tuple[int, int, int]:
    """Rank, number and rank on this machine of the processes that torchrun started; or 0, 1, 0."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 0
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])


def prepare_environment() -> None:
    """Choose what is fast on this processor, quiet or busy, where the user has chosen nothing.

    To be called before PyTorch is imported.
    """
    # A training step has about sixty barriers. At each of them GNU's OpenMP, which PyTorch brings
    # on Linux, spins 300,000 times before it lets another program run; while one holds a core, a
    # step takes up to a hundred times as long. With 1,000 spins a quiet machine is slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # On AMD's processors the AVX-512 kernels of PyTorch 2.14 for expm1 and log1p, which are in ELU
    # and softplus, take five times as long as its AVX2 kernels. Those of 2.15 are as fast.
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: nothing is known
        return
    if "AuthenticAMD" in processor and "avx512f" in processor:
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")


def prepare_processor() -> None:
    """Set how this process computes on the CPU. To be called before anything is computed."""
    import torch

    # Adam's averages of gradients that have become zero fade into denormal numbers, with which the
    # processor is many times slower. Threads inherit the mode when they start, hence the order.
    torch.set_flush_denormal(True)
    _, size, _ = place_in_team()
    if size > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        # That is what torchrun sets for each process, where the user has set nothing.
        known = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"])))


def choose_device(name: str) -> "torch.device":
    """The device of that name, or for "auto" a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
        devices = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count())), "cpu"]
    if name == "auto":
        name = devices[0]
    _, size, local_rank = place_in_team()
    if size > 1 and name == devices[0] != "cpu":  # a GPU for each process of torchrun
        name = f"{name}:{local_rank}"
    if name not in devices:
        known = f"this machine has no device {name!r}, only {', '.join(devices)}"
        raise UserError(f"argument --device: {known}", 2)
    return torch.device(name)
