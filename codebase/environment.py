"""What the environment says, and what PyTorch reads from it when it is imported."""

import os
from pathlib import Path


def launched() -> tuple[int, int, int]:
    """Rank, number and rank on this machine of the processes that torchrun started; or 0, 1, 0."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 0
    return tuple(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def prepare_environment() -> None:
    """Choose what is fast on this processor, quiet or busy, where the user has chosen nothing.

    PyTorch reads these variables when it is imported: call this before.
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
