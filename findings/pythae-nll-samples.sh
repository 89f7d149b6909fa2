#!/usr/bin/env bash
# pythae 0.1.2: get_nll, "negative log-likelihood", returns the log-likelihood, and rounds the
# number of samples to whole batches of 100.
#
# Expected: a positive number, from n_samples samples.
# Observed: a negative one; 1, 50 and 199 samples become 100, and 200 are 200. So a curve over 1, 10
# and 100 samples is flat.
# Output: 1: 100, 50: 100, 199: 100, 200: 200; all negative: True
# Source: pythae/models/vae/vae_model.py, get_nll: n_full_batch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6 pythae==0.1.2
"$folder/bin/python" - <<'END'
import torch
from pythae.models import VAE, VAEConfig

torch.manual_seed(0)
model = VAE(VAEConfig(input_dim=(1, 2, 2), latent_dim=2, reconstruction_loss="bce")).eval()
used = []
model.decoder.register_forward_hook(lambda _module, given, _result: used.append(len(given[0])))
image = torch.zeros(1, 1, 2, 2)
counts, values = {}, []
for samples in (1, 50, 199, 200):
    used.clear()
    with torch.no_grad():
        values.append(model.get_nll(image, n_samples=samples))
    counts[samples] = sum(used)
negative = all(value < 0 for value in values)
print(", ".join(f"{asked}: {got}" for asked, got in counts.items()) + f"; all negative: {negative}")
assert [*counts.values()] == [100, 100, 100, 200] and negative
END
