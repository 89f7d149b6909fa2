#!/usr/bin/env bash
# PyTorch 2.14.1: ContinuousBernoulli(logits=l).log_prob uses a constant normalizer for logits
# beyond 16 and -16.
#
# Expected: a distribution that takes logits is right for every logit, as Bernoulli is.
# Observed: the logit becomes a probability that is clamped to float32's epsilon, 1.2e-7. At -30 a
# black pixel gets 0.63 nats too little, and the gradient of the normalizer is 0.
# Output: at -15 2.708 of 2.708, at -30 2.769 of 3.401
# Source: torch/distributions/continuous_bernoulli.py, _cont_bern_log_norm, and
# utils.logits_to_probs with clamp_probs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile torch==2.14.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import math

import torch
from torch.distributions import ContinuousBernoulli


def of_black(logit):
    """log_prob(0), and its exact value: the density at x is exp(l * x) * l / (exp(l) - 1)."""
    found = ContinuousBernoulli(logits=torch.tensor(logit)).log_prob(torch.tensor(0.0)).item()
    return found, math.log(logit / math.expm1(logit))


(near, right), (far, exact) = of_black(-15.0), of_black(-30.0)
print(f"at -15 {near:.3f} of {right:.3f}, at -30 {far:.3f} of {exact:.3f}")
assert abs(near - right) < 1e-4 and abs(exact - far - 0.632) < 1e-2
END
