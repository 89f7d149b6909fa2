#!/usr/bin/env bash
# pythae 0.1.2: MIWAE normalizes its weights over number_gradient_estimates (M) and averages over
# number_samples (K), where the paper does it the other way.
#
# Expected: M = 1 and K = 10 is the IWAE with ten samples.
# Observed: it is the plain ELBO, averaged over ten samples. With the defaults, M = 5 and K = 10,
# the loss is the mean of ten losses of pythae's IWAE, each with five samples.
# Output: M = 1, K = 10 equals the ELBO: True; M = 10, K = 1: False
# Source: pythae/models/miwae/miwae_model.py, loss_function, dimension 1; Rainforth et al., Tighter
# Variational Bounds are Not Necessarily Better, 2018.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6 pythae==0.1.2
"$folder/bin/python" - <<'END'
import torch
from pythae.models import MIWAE, MIWAEConfig


def is_elbo(estimates, samples):
    """Whether the loss is the mean of rec + kl over all samples of the same pass."""
    torch.manual_seed(0)
    model = MIWAE(
        MIWAEConfig(
            input_dim=(1, 2, 2),
            latent_dim=2,
            reconstruction_loss="bce",
            number_gradient_estimates=estimates,
            number_samples=samples,
        )
    ).eval()
    with torch.no_grad():
        result = model({"data": torch.bernoulli(torch.full((64, 1, 2, 2), 0.5))})
    return abs((result.loss - (result.recon_loss + result.reg_loss).mean()).item()) < 1e-5


print(f"M = 1, K = 10 equals the ELBO: {is_elbo(1, 10)}; M = 10, K = 1: {is_elbo(10, 1)}")
assert is_elbo(1, 10) and not is_elbo(10, 1)
END
