#!/usr/bin/env bash
# Keras 3.15.1 with JAX: binary_crossentropy of probabilities clips them to [1e-7, 1 - 1e-7] in
# float32, so a white pixel costs at most 16.12 nats and a black one at most 15.94.
#
# Expected: -log(1e-12) = 27.6 nats, or at least the same limit for both.
# Observed: two limits, because 1 - 1e-7 is not a float32, and the nearest one is 1 - 1.19e-7.
# from_logits=True has neither limit.
# Output: white 16.118 black 15.942 from logits 30.0
# Source: keras/src/backend/jax/nn.py, binary_crossentropy, and config.epsilon(), 1e-7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile keras==3.15.1 jax==0.10.2
"$folder/bin/python" - <<'END'
import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np


def cost(target, value, **options):
    target, value = (np.array([[each]], np.float32) for each in (target, value))
    return float(keras.losses.binary_crossentropy(target, value, **options)[0])


white, black, logits = cost(1, 1e-12), cost(0, 1), cost(1, -30, from_logits=True)
print(f"white {white:.3f} black {black:.3f} from logits {logits:.1f}")
assert abs(white - 16.118) < 1e-3 and abs(black - 15.942) < 1e-3 and abs(logits - 30) < 1e-3
END
