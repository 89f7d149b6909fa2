"""What computes: the environment that PyTorch reads, the processor's modes, and the device.

PyTorch is imported inside the functions, since it reads the environment when it is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from codebase.system.cores import usable_cores
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


@contextmanager
def prepared_environment() -> Iterator[None]:
    """Prepare the environment for what is imported inside the block, and leave it as it was."""
    before = dict(os.environ)
    prepare_environment()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def prepared_processor() -> Iterator[None]:
    """Set how this process computes on the CPU inside the block, before anything is computed."""
    import numpy
    import torch

    # Adam's averages of gradients that have become zero fade into denormal numbers, with which the
    # processor is many times slower. Threads inherit the mode when they start, hence the order.
    for kind in (numpy.float32, numpy.float64):
        numpy.finfo(kind)  # looks for such numbers once, and would warn that there are none
    torch.set_flush_denormal(True)
    chosen, processes = os.environ.get("OMP_NUM_THREADS"), 1
    if place_in_team()[1] > 1:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        chosen = None if chosen == "1" else chosen  # torchrun sets that, where the user set nothing
    before = torch.get_num_threads()
    if not chosen:
        most = usable_cores() // processes
        torch.set_num_threads(max(1, most if processes > 1 else min(before, most)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def choose_device(name: str) -> "torch.device":
    """The device of that name, or for "auto" a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]  # not None
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
