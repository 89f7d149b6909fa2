"""The processor and the device: environment variables, threads, and the choice of a device.

PyTorch is imported inside the functions, because it reads the environment when it is imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from codebase.system.errors import UserError

if TYPE_CHECKING:
    import torch

# Set for the processes that `--runs` starts: the number of threads that each may use.
ONE_OF_SEVERAL = "RUN_VAE_ONE_OF_SEVERAL"


def torchrun_ranks() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine under torchrun; else (0, 1, 0)."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 0
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])


def is_number_of_user() -> bool:
    """Whether the user has set the number of threads in OMP_NUM_THREADS; torchrun sets it to 1."""
    number = os.environ.get("OMP_NUM_THREADS")
    return bool(number) and not (number == "1" and torchrun_ranks()[1] > 1)


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that affinity and the cgroup v2 quota leave to this process.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, below the root of the file system.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, IndexError, ValueError):  # no such file or group, or the quota is "max"
        group = (root / "proc/self/cgroup").read_text().split("0::/")[1].strip()
        quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def prepare_environment() -> None:
    """Set environment variables that make PyTorch fast on this processor, unless the user set them.

    Call it before PyTorch is imported.
    """
    # A training step has about sixty barriers. At each of them GNU's OpenMP, which PyTorch's Linux
    # builds bring, spins 300,000 times before it lets another program run; while one holds a core,
    # a step takes up to a hundred times as long. With 1,000 spins a quiet machine is slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # In this mode Intel's MKL adds in the same order whatever the number of threads, as quickly.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    # On AMD processors the AVX-512 kernels of PyTorch 2.14 for expm1 and log1p, used by ELU and
    # softplus, take five times as long as its AVX2 kernels. Those of 2.15 are as fast.
    with suppress(OSError):  # not Linux
        processor = Path("/proc/cpuinfo").read_text()
        if "AuthenticAMD" in processor and "avx512f" in processor:
            os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")


@contextmanager
def prepared_processor() -> Iterator[None]:
    """Flush denormal numbers and set the number of threads inside the block.

    Enter it before the first computation, because threads inherit the mode when they start. The
    number is the user's, or one for each usable core, or this run's share of them with `--runs`.
    """
    import numpy
    import torch

    # Adam's averages of gradients that have become zero decay into denormal numbers, with which the
    # processor is many times slower. NumPy probes for such numbers once, and would warn afterwards.
    for kind in (numpy.float32, numpy.float64):
        numpy.finfo(kind)
    torch.set_flush_denormal(True)
    before = torch.get_num_threads()
    if torchrun_ranks()[1] > 1 and not is_number_of_user():
        torch.set_num_threads(max(1, usable_cores() // int(os.environ["LOCAL_WORLD_SIZE"])))
    elif not is_number_of_user():
        torch.set_num_threads(min(before, int(os.environ.get(ONE_OF_SEVERAL, usable_cores()))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def choose_device(name: str, probe: bool = True) -> "torch.device":
    """The device of that name, or a UserError; "auto" is a GPU that works, else the CPU.

    `probe` tries an operation on a GPU. This process then holds some of its memory.
    """
    import torch

    gpus = []
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]  # not None
        gpus = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]
    devices = [*gpus, "cpu"]
    is_chosen = name != "auto"
    name = name if is_chosen else devices[0]
    _, size, local_rank = torchrun_ranks()
    if size > 1 and name in gpus[:1]:  # each process of torchrun takes a GPU of its own
        name = f"{name}:{local_rank}"
    if name not in devices:
        known = f"this machine has no device {name!r}, only {', '.join(devices)}"
        raise UserError(f"argument --device: {known}", 2)
    try:  # PyTorch may lack code for this GPU, or others may use all of its memory
        if probe and name != "cpu":
            x = torch.ones(8, 8, device=name)
            (x @ x).sum().item()
    except RuntimeError as error:
        reason = f"the device {name} cannot be used ({str(error).splitlines()[0]})"
        if is_chosen or size > 1:  # the processes of torchrun need devices of one kind
            raise UserError(f"{reason}; use --device cpu") from error
        print(f"Warning: {reason}; the CPU is used instead", file=sys.stderr)
        name = "cpu"
    return torch.device(name)


def check_defaults() -> None:
    """Raise UserError if a student's file has changed PyTorch's default dtype or device."""
    import torch

    values = torch.get_default_dtype(), torch.get_default_device()
    if values != (torch.float32, torch.device("cpu")):
        files = "codebase/utils.py, codebase/models/vae.py or your networks"
        defaults = "PyTorch's defaults are {} and {}, not torch.float32 and cpu".format(*values)
        raise UserError(f"{defaults}; delete the line with torch.set_default_... from {files}")
