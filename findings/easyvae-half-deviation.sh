#!/usr/bin/env bash
# easyvae 1.3.3: the latents are sampled with half the standard deviation that the KL is computed
# with.
#
# Expected: z = mean + std * noise, with std = exp(logvar / 2).
# Observed: z = mean + 0.5 * std * noise. So the prior is wider than the codes that the decoder is
# trained on.
# Output: ratio 0.499
# Source: easyvae/layers.py, SampleLayer.forward.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile easyvae==1.3.3 numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np
from easyvae.activations import Identity
from easyvae.layers import SampleLayer

np.random.seed(0)
layer, code = SampleLayer(2, 0.001, Identity()), np.array([0.3, 0.7])
samples = np.array([layer.forward(code) for _ in range(20_000)])
ratio = float((samples.std(0) / layer.std).mean())
print(f"ratio {ratio:.3f}")
assert abs(ratio - 0.5) < 0.02
END
