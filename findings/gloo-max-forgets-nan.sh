#!/usr/bin/env bash
# PyTorch 2.14.1: all_reduce with ReduceOp.MAX over Gloo may lose a NaN, and with it the largest
# number.
#
# Expected: the maximum with a NaN is NaN, as in torch.maximum, so one all_reduce of the losses
# shows every process that one of them has diverged.
# Observed: a NaN survives only in the process that compares last, which is process 0 for a single
# number. Otherwise it is lost, and with it the numbers that were compared with it before: of 0, NaN
# and 5 the maximum is 0. SUM keeps every NaN.
# Output: NaN and 1: nan; 1 and NaN: 1.0; 0, NaN and 5: 0.0; their sum: nan
# Source: gloo/math.h, which compares with std::max.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import math
import tempfile

import torch
import torch.distributed as dist

MAX, SUM = dist.ReduceOp.MAX, dist.ReduceOp.SUM


def reduce(rank, name, values, operation):
    """Save the result of all_reduce over processes, each of which has one of the values."""
    dist.init_process_group(
        "gloo", init_method=f"file://{name}", rank=rank, world_size=len(values)
    )
    value = torch.tensor([values[rank]])
    dist.all_reduce(value, operation)
    if rank == 0:
        torch.save(value, name + ".result")
    dist.destroy_process_group()


def result(operation, *values):
    with tempfile.TemporaryDirectory() as folder:
        name = folder + "/store"
        torch.multiprocessing.start_processes(
            reduce, (name, values, operation), nprocs=len(values), start_method="fork"
        )
        return torch.load(name + ".result").item()


nan = math.nan
first, second = result(MAX, nan, 1.0), result(MAX, 1.0, nan)
three, total = result(MAX, 0.0, nan, 5.0), result(SUM, 0.0, nan, 5.0)
print(f"NaN and 1: {first}; 1 and NaN: {second}; 0, NaN and 5: {three}; their sum: {total}")
assert math.isnan(first) and second == 1 and three == 0 and math.isnan(total)
END
