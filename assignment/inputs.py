"""Random inputs for the function of each task."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from assignment.pictures import PATTERN
from assignment.probe import Inputs

# Limits of the random inputs: within them every known mistake changes the answer.
M = torch.tensor([[[0.4, 0.6], [0.8, 1.1]], [[1.3, 1.7], [0.2, 0.4]], [[0.1, 0.2], [0.5, 0.9]]])
V = torch.tensor(
    [[[0.2, 0.3], [3.5, 4.5]], [[1.7, 2.3], [0.002, 0.003]], [[0.8, 0.95], [0.1, 0.2]]]
)
NEAR_ONE = torch.tensor(
    [[[0.5, 0.7], [1.3, 1.6]], [[1.4, 1.8], [0.6, 0.8]], [[0.4, 0.6], [0.8, 0.9]]]
)
PIXEL_LOGITS = torch.tensor([-200, -1.2, 0.1, 0.9, 200])


def ask(task: str, seed: int) -> Inputs:
    """Inputs for a task, different for each seed."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(limits: Tensor) -> Tensor:
        low, high = limits.unbind(-1)
        return low + (high - low) * torch.rand(low.shape, generator=generator)

    def signs(*shape: int) -> Tensor:
        return 1.0 - 2 * torch.randint(2, shape, generator=generator)

    logits = uniform(torch.tensor([-2.0, 3.0]).expand(784, 2))
    # Their log probabilities differ by more than 100 nats, so that exp of a difference is 0.
    ones = torch.stack([logits.sigmoid(), torch.full((784,), 0.5), 1 - logits.sigmoid()])
    inputs = {"x": torch.bernoulli(ones, generator=generator), "logits": logits}
    inputs |= {"m": uniform(M) * signs(3, 2), "v": uniform(V)}
    # The last one is near the posterior, so that its KL is small.
    other_m = torch.cat([uniform(M)[:2].flip(0) * signs(2, 2), inputs["m"][2:] + 0.05])
    inputs |= {"other m": other_m, "other v": uniform(V).flip(0).clamp(0.4)}
    inputs["other v"][2] = 1.2 * inputs["v"][2]
    if task == "negative_elbo_bound":
        inputs["slopes"] = torch.randn(2, 784, generator=generator)
    if task == "negative_iwae_bound":
        # With a factor of 1 and v of 1 the posterior would be exact, and the weights constant.
        inputs["v"] = uniform(NEAR_ONE)
        residual = inputs["x"] - logits.sigmoid()
        inputs["slopes"] = (torch.linalg.pinv(residual) @ (2 * inputs["m"])).T
    # Logits of all sizes. Those of the later two images break functions that round or overflow.
    near = uniform(torch.tensor([0.4, 2.0]).expand(3, 3, 2)) * signs(3, 3)
    near[1, :2] = uniform(torch.tensor([[-180.0, -140], [150, 200]]))
    near[2, :2] = uniform(torch.tensor([[25.0, 35], [-35, -25]]))
    bits = torch.tensor([[1.0, 0, 1], [1, 1, 0], [0, 1, 1]])
    inputs |= {"logits of bits": near, "bits": bits}
    if task in ("sample_x", "visualize_samples"):
        inputs |= {"m": signs(3, 10), "v": torch.full((3, 10), 0.3)}  # z has ten dimensions
    if task == "sample_x":
        inputs["logits"] = PIXEL_LOGITS[torch.randint(5, (784,), generator=generator)]
    if task == "visualize_samples":
        # In one picture the pattern is random, in the other one the rest of the middle is 1.
        logit = uniform(torch.tensor([0.2, 0.5])) * signs()
        for name, blocks in (
            ("random", PATTERN * (logit + 200)),
            ("constant", 400 - 400 * PATTERN),
        ):
            middle = blocks.kron(torch.ones(4, 4)) - 200
            inputs[f"{name} logits"] = pad(middle, (4, 4, 8, 8), value=-200).flatten()
    return inputs
