#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 does the same): jax.random.fold_in(key, i) is jax.random.split(key, n)[i],
# for every n > i.
#
# Expected: these are two ways to independent keys, so a key that was split for the layers may also
# be used with fold_in(key, step).
# Observed: step 1 and layer 1 get the same key, and split(key) and split(key, 50) begin with the
# same keys.
# Output: True True True
# Source: jax/_src/random/threefry2x32.py, _threefry_split_foldlike and threefry_fold_in, with the
# default jax_threefry_partitionable.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile jax==0.10.2
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp

key = jax.random.key(0)


def same(a, b):
    return bool((jax.random.key_data(a) == jax.random.key_data(b)).all())


found = [
    same(jax.random.fold_in(key, 1), jax.random.split(key)[1]),
    same(jax.random.fold_in(key, 3), jax.random.split(key, 50)[3]),
    bool(
        jnp.array_equal(
            jax.random.normal(jax.random.fold_in(key, 3), (5,)),
            jax.random.normal(jax.random.split(key, 7)[3], (5,)),
        )
    ),
]
print(*found)
assert all(found)
END
