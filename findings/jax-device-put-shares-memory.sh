#!/usr/bin/env bash
# JAX 0.10.2 (0.12.0.1 does the same), on a CPU: jax.device_put of a NumPy array whose memory begins
# at a multiple of 64 bytes makes no copy. jnp.array and jnp.asarray make one.
#
# Expected: JAX arrays never change, and device_put is documented to return a copy, so a loader may
# refill its NumPy buffer afterwards.
# Observed: the JAX array changes with the buffer, or does not, depending on where NumPy happened to
# place the buffer.
# Output: aligned 2.0, jnp.asarray 1.0, not aligned 1.0, jnp.array 1.0
# Source: the parameter may_alias in the documentation of jax.device_put.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile jax==0.10.2
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np


def after_refill(offset, put):
    memory = np.zeros(1_100, np.float32)
    start = (-memory.ctypes.data % 64) // 4 + offset
    buffer = memory[start : start + 1_000]
    buffer[:] = 1
    array = put(buffer).block_until_ready()
    buffer[:] = 2
    return float(array[0])


aligned, moved = after_refill(0, jax.device_put), after_refill(1, jax.device_put)
other, copied = after_refill(0, jnp.asarray), after_refill(0, jnp.array)
print(f"aligned {aligned}, jnp.asarray {other}, not aligned {moved}, jnp.array {copied}")
assert (aligned, other, moved, copied) == (2, 1, 1, 1)
END
