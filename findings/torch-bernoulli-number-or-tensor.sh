#!/usr/bin/env bash
# PyTorch 2.14.1, on a CPU: x.bernoulli_(0.5) and torch.bernoulli of a tensor full of 0.5 give
# different bits for the same seed.
#
# Expected: one formula, u < p, and one stream of u.
# Observed: two methods. With a tensor of p the bits are those of torch.rand(n) < p; with a number
# they are not, and dropout uses the method for a number. So replacing a tensor p by a number
# changes a binarization.
# Output: tensor and rand 1000, tensor and number fewer than 600, number and dropout 1000 of 1000
# equal
# Source: aten/src/ATen/native/cpu/DistributionTemplates.h (bernoulli_kernel), with MKL in
# aten/src/ATen/native/cpu/DistributionKernels.cpp.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import torch

half = torch.full((1_000,), 0.5)


def bits(draw):
    torch.manual_seed(0)
    return draw()


tensor = bits(lambda: torch.bernoulli(half))
rand = bits(lambda: (torch.rand(1_000) < half).float())
number = bits(lambda: torch.empty(1_000).bernoulli_(0.5))
dropout = bits(lambda: torch.nn.functional.dropout(torch.ones(1_000), 0.5) / 2)
pairs = [(tensor, rand), (tensor, number), (number, dropout)]
counts = [int((a == b).sum()) for a, b in pairs]
print("tensor and rand {}, tensor and number {}, number and dropout {}".format(*counts))
assert counts[0] == counts[2] == 1_000 and counts[1] < 600
END
