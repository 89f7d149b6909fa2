#!/usr/bin/env bash
# zuko 1.6.0: importing it turns off the checks of all distributions of PyTorch, in the whole
# program.
#
# Expected: importing a library of flows changes nothing outside of it.
# Observed: before the import, Bernoulli(0.5).log_prob(0.3) raises ValueError; after it, it returns
# a number. So grey pixels given to a likelihood of binary ones, or a negative scale, no longer
# raise an error.
# Output: before ValueError, after -0.6931
# Source: zuko/distributions.py, Distribution._validate_args = False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6 zuko==1.6.0
"$folder/bin/python" - <<'END'
import torch
from torch.distributions import Bernoulli


def of_grey():
    try:
        return f"{Bernoulli(torch.tensor(0.5)).log_prob(torch.tensor(0.3)).item():.4f}"
    except ValueError as error:
        return type(error).__name__


before = of_grey()
import zuko  # noqa: E402, F401

print("before", before, "after", of_grey())
assert before == "ValueError" and of_grey() == "-0.6931"
END
