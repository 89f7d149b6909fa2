#!/usr/bin/env bash
# PyTorch 2.14.1: all_reduce with ReduceOp.MAX over Gloo forgets a NaN, unless it is the first
# process's.
#
# One would think: the maximum with a NaN is NaN, as in torch.maximum, so one all_reduce of the
# losses tells every process that one of them has diverged.
# It is: NaN if process 0 has it, and the maximum of the others if another one has it. SUM keeps
# every NaN.
# Seen: NaN in process 0: nan, in process 1: 0.0, sum: nan
# Source: gloo/math.h, which compares with std::max.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import tempfile

import torch
import torch.distributed as dist


def reduce(rank, name, which, operation):
    """The result on process 0, where process `which` of two gives NaN, and the other its rank."""
    dist.init_process_group("gloo", init_method=f"file://{name}", rank=rank, world_size=2)
    value = torch.tensor([float("nan") if rank == which else float(rank)])
    dist.all_reduce(value, operation)
    if rank == 0:
        torch.save(value, name + ".result")
    dist.destroy_process_group()


def result(which, operation):
    with tempfile.TemporaryDirectory() as folder:
        name = folder + "/store"
        context = torch.multiprocessing.start_processes(
            reduce, (name, which, operation), nprocs=2, start_method="fork"
        )
        assert context is None
        return torch.load(name + ".result").item()


first, second = (result(which, dist.ReduceOp.MAX) for which in (0, 1))
total = result(1, dist.ReduceOp.SUM)
print(f"NaN in process 0: {first}, in process 1: {second}, sum: {total}")
assert first != first and second == 0 and total != total
END
