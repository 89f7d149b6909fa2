#!/usr/bin/env bash
# PyTorch 2.14.1, on a CPU: torch.randn(n) is not the beginning of torch.randn(m) for m > n, if n is
# not a multiple of 16.
#
# Expected: one seed, one stream of numbers, and a shorter tensor has fewer of them, like
# torch.rand.
# Observed: the last 16 numbers are sampled a second time, from later in the stream. For n < 16 all
# numbers differ, because they are computed by a different method. So the noise of an image in a
# batch depends on how many images follow it.
# Output: equal in the first 96, 100 and 15 numbers: 96, 84, 0; rand: 100
# Source: aten/src/ATen/native/cpu/DistributionTemplates.h, normal_fill.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import torch


def equal(n, draw=torch.randn):
    torch.manual_seed(0)
    long = draw(1_000)
    torch.manual_seed(0)
    return int((draw(n) == long[:n]).sum())


print(f"equal in the first 96, 100 and 15 numbers: {equal(96)}, {equal(100)}, {equal(15)}", end="; ")
print(f"rand: {equal(100, torch.rand)}")
assert (equal(96), equal(100), equal(15), equal(100, torch.rand)) == (96, 84, 0, 100)
END
