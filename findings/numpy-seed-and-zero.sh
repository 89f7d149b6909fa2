#!/usr/bin/env bash
# NumPy 2.4.6 (2.5.5 does the same): default_rng(5), default_rng([5, 0]) and default_rng([5, 0, 0])
# are one generator, and default_rng([5, 1]) is another.
#
# Expected: seeds of [run, step] give each run and step its own stream, and so do [run, step, rank].
# Observed: step 0 of run 5 has the stream of run 5 itself, because a seed of fewer than four 32-bit
# words is padded with zeros.
# Output: True True False
# Source: numpy/random/bit_generator.pyx, SeedSequence.mix_entropy; its pool has four words.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np


def same(seed):
    one, other = (np.random.default_rng(each).random(100) for each in (5, seed))
    return np.array_equal(one, other)


print(same([5, 0]), same([5, 0, 0]), same([5, 1]))
assert same([5, 0]) and same([5, 0, 0]) and not same([5, 1])
END
