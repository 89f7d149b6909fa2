#!/usr/bin/env bash
# NumPyro 0.22.0: the gradient of Bernoulli(logits=l).log_prob(x) is wrong where l is exactly 0.
#
# Expected: it is x - sigmoid(l), so -0.5 for a black pixel and 0.5 for a white one.
# Observed: 0 and 1 at l = 0, and right everywhere else. A decoder whose last layer starts at 0 gets
# these gradients in its first step: black pixels get none.
# Output: at 0 [0.0, 1.0], at 1e-8 [-0.5, 0.5]
# Source: numpyro/distributions/util.py, binary_cross_entropy_with_logits, jnp.clip(x, 0) +
# log1p(exp(-abs(x))) - x * y. At 0, JAX's derivative is 0.5 for clip and 1 for abs; 0 for abs would
# give the right sum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile numpyro==0.22.0 jax==0.10.2
"$folder/bin/python" - <<'END'
import jax
from numpyro.distributions import Bernoulli


def gradients(logit):
    return [float(jax.grad(lambda l: Bernoulli(logits=l).log_prob(x))(logit)) for x in (0.0, 1.0)]


print("at 0", gradients(0.0), "at 1e-8", gradients(1e-8))
assert gradients(0.0) == [0, 1] and gradients(1e-8) == [-0.5, 0.5]
END
