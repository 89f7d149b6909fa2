#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save writes the elements of an array in Fortran's order, for
# example a transposed weight matrix, in the order of the memory, but records its shape as if they
# were in C's order.
#
# Expected: the array that is loaded equals the one that was saved, or saving raises an error, as it
# does for a transposed tensor of PyTorch.
# Observed: no error, the right shape, and the elements at other places. 0.7.0 saves them correctly.
# Output: saved [[0, 3], [1, 4], [2, 5]] loaded [[0, 1], [2, 3], [4, 5]]
# Source: github.com/safetensors/safetensors, issue 825; the documentation asks for arrays that are
# "contiguous and dense", which this one is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile safetensors==0.8.0 numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np
from safetensors.numpy import load, save

weights = np.arange(6).reshape(2, 3).T
assert weights.flags.f_contiguous
loaded = load(save({"weights": weights}))["weights"]
print("saved", weights.tolist(), "loaded", loaded.tolist())
assert loaded.shape == weights.shape and loaded.tolist() == [[0, 1], [2, 3], [4, 5]]
END
