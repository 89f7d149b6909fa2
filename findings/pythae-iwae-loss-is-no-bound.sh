#!/usr/bin/env bash
# pythae 0.1.2: the loss of IWAE is no bound on -log p(x). With many samples it falls below it.
#
# Expected: it is -log of the mean weight, which lies above -log p(x) and comes near to it.
# Observed: the mean of the log weights, weighted by the normalized weights. Its gradient is right,
# its value is smaller than the bound of as many samples, K, by up to log K. After training on MNIST
# with two latents and 50 samples it was 159.5, where -log p(x) was 160.1. With one sample it is the
# NELBO.
# Output: -log p(x) 2.820, loss with 1,000 samples 2.767, bound of 1,000 samples 2.821
# Source: pythae/models/iwae/iwae_model.py, loss_function.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6 pythae==0.1.2
"$folder/bin/python" - <<'END'
import math

import torch
from pythae.models import IWAE, IWAEConfig

torch.manual_seed(0)
model = IWAE(
    IWAEConfig(
        input_dim=(1, 2, 2), latent_dim=2, reconstruction_loss="bce", number_samples=1_000
    )
).eval()
images = torch.bernoulli(torch.full((64, 1, 2, 2), 0.5))
bits = images.flatten(1)


def joint(z):
    """log p(x, z) for z of shape (n, 2) and the 64 images: (n, 64)."""
    p = model.decoder(z)["reconstruction"].flatten(1)
    prior = -z.square().sum(1, keepdim=True) / 2 - math.log(2 * math.pi)
    return p.log() @ bits.T + (-p).log1p() @ (1 - bits).T + prior


with torch.no_grad():
    axis = torch.linspace(-7, 7, 401)
    exact = -(joint(torch.cartesian_prod(axis, axis)).logsumexp(0) + 2 * math.log(14 / 400)).mean()
    loss = model({"data": images}).loss
    code = model.encoder(images)
    posterior = torch.distributions.Normal(code.embedding, (code.log_covariance / 2).exp())
    z = posterior.sample((1_000,))
    weights = torch.stack([joint(z[:, i])[:, i] for i in range(64)], 1)
    weights -= posterior.log_prob(z).sum(-1)
    bound = -(weights.logsumexp(0) - math.log(1_000)).mean()
print(f"-log p(x) {exact:.3f}, loss with 1,000 samples {loss:.3f}", end=", ")
print(f"bound of 1,000 samples {bound:.3f}")
assert loss < exact - 0.03 and abs(bound - exact) < 0.01
END
