#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 does the same): jax.random.bernoulli with p in bfloat16 samples its uniform
# numbers in bfloat16 too. They are multiples of 1/128, so p is rounded up to the next multiple.
#
# Expected: with p = 0.001, 1 in 1,000 samples is 1, up to the 0.4 % by which bfloat16 rounds p.
# Observed: 7.7 in 1,000, and the same 7.7 for p = 0.004. In float32 it is right.
# Output: 0.00771 0.00771 0.00099
# Source: jax/_src/random/core.py, _bernoulli, which calls uniform with the dtype of p. The argument
# mode="high" is documented for small p.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile jax==0.10.2
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp

key = jax.random.key(0)


def share(p, dtype):
    return float(jax.random.bernoulli(key, jnp.asarray(p, dtype), (1_000_000,)).sum()) / 1e6


low, higher = share(0.001, jnp.bfloat16), share(0.004, jnp.bfloat16)
right = share(0.001, jnp.float32)
print(f"{low:.5f} {higher:.5f} {right:.5f}")
assert low == higher and abs(low - 1 / 128) < 5e-4 and abs(right - 0.001) < 2e-4
END
