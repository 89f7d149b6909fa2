#!/usr/bin/env bash
# NumPy 2.4.6 (2.5.5 does the same): np.random.binomial(1, p) uses one random number for each entry
# of p, Generator.binomial(1, p) uses none where p is 0.
#
# Expected: the new generator has other numbers, but the same rule: pixel i gets number i.
# Observed: the bits of an image depend on how many zeros are before them, so two images with
# different zeros get different noise at the same position.
# Output: legacy equal True, Generator equal False
# Source: numpy/random/_generator.pyx, Generator.binomial, and random_binomial in distributions.c.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np

p = np.array([0, 0, 0.5, 0, 0.5] * 20)
plain = np.full(p.shape, 0.5)


def bits(binomial, seed):
    """The bits where p is 0.5, once with zeros between them and once without."""
    return [binomial(seed)(1, each)[p == 0.5] for each in (p, plain)]


legacy = np.array_equal(*bits(lambda seed: np.random.RandomState(seed).binomial, 0))
new = np.array_equal(*bits(lambda seed: np.random.default_rng(seed).binomial, 0))
print("legacy equal", legacy, "Generator equal", new)
assert legacy and not new
END
