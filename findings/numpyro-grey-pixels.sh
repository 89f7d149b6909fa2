#!/usr/bin/env bash
# NumPyro 0.22.0: Bernoulli(logits=l).log_prob(x) of a grey pixel is -inf, with gradient 0.
#
# Expected: the cross entropy x * log(p) + (1 - x) * log(1 - p), as in torch.distributions.Bernoulli
# with validate_args=False, or an error, as in PyTorch with checks.
# Observed: -inf and a warning, while the gradient is a finite 0. So an optimizer sees an infinite
# loss, and a white pixel beside it still learns. With validate_args=False it is the cross entropy.
# Output: grey -inf gradient 0.0, unchecked -0.693 gradient -0.200
# Source: numpyro/distributions/util.py, validate_sample.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile numpyro==0.22.0 jax==0.10.2
"$folder/bin/python" - <<'END'
import warnings

import jax
from numpyro.distributions import Bernoulli

warnings.simplefilter("ignore")


def value_and_gradient(**options):
    log_prob = jax.value_and_grad(lambda l: Bernoulli(logits=l, **options).log_prob(0.3))
    return map(float, log_prob(1e-6))


grey, gradient = value_and_gradient()
unchecked, other = value_and_gradient(validate_args=False)
print(f"grey {grey} gradient {gradient}, unchecked {unchecked:.3f} gradient {other:.3f}")
assert grey == float("-inf") and gradient == 0
assert abs(unchecked + 0.693) < 1e-3 and abs(other + 0.2) < 1e-3
END
