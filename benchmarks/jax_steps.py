"""Times the same training steps in JAX, compiled as one scan over a block of steps.

Usage: python jax_steps.py IMAGES.npy STEPS. For every line on standard input it takes a block of
STEPS steps, and prints the milliseconds per step.
"""

import sys
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax

Z = 10
BATCH = 100
ENCODER, DECODER = (784, 300, 300, 2 * Z), (Z, 300, 300, 784)


def initial_layers(sizes, key):
    """Weights and biases of linear layers, sampled as PyTorch samples them."""
    layers = []
    for inputs, outputs in pairwise(sizes):
        key, *keys = jax.random.split(key, 3)
        shapes = ((inputs, outputs), (outputs,))
        limit = inputs**-0.5
        pairs = zip(keys, shapes, strict=True)
        layers.append([jax.random.uniform(k, s, minval=-limit, maxval=limit) for k, s in pairs])
    return layers


def network(layers, x):
    """Linear layers with ELU between them."""
    for weight, bias in layers[:-1]:
        x = jax.nn.elu(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def negative_elbo(parameters, x, key):
    """The negative ELBO and its two parts, averaged over the batch, in nats per image."""
    m, h = jnp.split(network(parameters[0], x), 2, axis=-1)
    v = jax.nn.softplus(h) + 1e-8
    logits = network(parameters[1], m + jnp.sqrt(v) * jax.random.normal(key, m.shape))
    kl = 0.5 * (-jnp.log(v) + v + m**2 - 1).sum(-1).mean()
    rec = -(x * logits - jax.nn.softplus(logits)).sum(-1).mean()
    return kl + rec, (kl, rec)


def main(path, steps):
    """Time a block of steps for every line on standard input."""
    images = jnp.asarray(np.load(path))
    optimizer = optax.adam(1e-3)

    def step(carry, indices):
        """Take one training step."""
        parameters, moments, key = carry
        key, pixels, noise = jax.random.split(key, 3)
        x = jax.random.bernoulli(pixels, images[indices] / 255).astype(jnp.float32)
        gradient = jax.value_and_grad(negative_elbo, has_aux=True)
        (nelbo, parts), slopes = gradient(parameters, x, noise)
        changes, moments = optimizer.update(slopes, moments)
        return (optax.apply_updates(parameters, changes), moments, key), (nelbo, *parts)

    @jax.jit
    def block(carry):
        """Take a block of steps, with the images in random order."""
        parameters, moments, key = carry
        key, order = jax.random.split(key)
        epochs = -(-steps * BATCH // len(images))
        orders = [jax.random.permutation(k, len(images)) for k in jax.random.split(order, epochs)]
        indices = jnp.concatenate(orders)[: steps * BATCH].reshape(steps, BATCH)
        return jax.lax.scan(step, (parameters, moments, key), indices)

    keys = jax.random.split(jax.random.key(0), 3)
    parameters = [initial_layers(ENCODER, keys[0]), initial_layers(DECODER, keys[1])]
    carry = parameters, optimizer.init(parameters), keys[2]
    for _ in sys.stdin:
        start = time.perf_counter()
        carry, _ = jax.block_until_ready(block(carry))
        print(1e3 * (time.perf_counter() - start) / steps, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
