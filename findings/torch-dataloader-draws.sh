#!/usr/bin/env bash
# PyTorch 2.14.1: starting an iteration over a DataLoader takes one number from the global
# generator, also with shuffle=False, without workers and without random transforms.
#
# Expected: a pass over the test images in order uses no random numbers, so measuring between two
# training steps does not change the training.
# Observed: every such pass changes all later random numbers. Pass generator= to the loader to
# prevent this.
# Output: without 0.4963, after a pass 0.0885, with its own generator 0.4963
# Source: torch/utils/data/dataloader.py, _BaseDataLoaderIter, _base_seed. See
# github.com/pytorch/pytorch, issue 11062.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import torch
from torch.utils.data import DataLoader, TensorDataset


def next_number(passes, **options):
    torch.manual_seed(0)
    for _ in range(passes):
        for _batch in DataLoader(TensorDataset(torch.zeros(4)), batch_size=2, **options):
            pass
    return torch.rand(()).item()


without, after, own = next_number(0), next_number(1), next_number(1, generator=torch.Generator())
print(f"without {without:.4f}, after a pass {after:.4f}, with its own generator {own:.4f}")
assert without == own != after
END
