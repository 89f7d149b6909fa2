"""The number of PyTorch's threads, which follows the load of the machine while a run trains."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

SECONDS_BETWEEN_TRIALS = 4.0
STEPS_OF_A_TRIAL = 5
GAIN = 1.1  # Half the threads are used only if they are faster by this factor, not by chance.


@contextmanager
def following_load(training: Any, images: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Let the number of threads follow the load of the machine inside the block.

    Two threads are faster than one on a quiet machine, but much slower beside another program,
    because each waits for the other. Only numbers with which a step has the same result, bit by
    bit, are used. The number is fixed on a GPU, with several processes, and if the user sets it in
    OMP_NUM_THREADS.

    Args:
        training: a `train.Training`.
        images: a batch, of which copies of `training` take a step.

    Yields:
        the training step to call.
    """
    if training.device.type != "cpu" or training.processes.size > 1:
        yield training.take_step
        return
    most = torch.get_num_threads()
    try:
        numbers = [] if os.environ.get("OMP_NUM_THREADS") else _equivalent(training, images, most)
        torch.set_num_threads(most)
        yield _timed(training.take_step, _trials(numbers)) if numbers[1:] else training.take_step
    finally:
        torch.set_num_threads(most)


def _equivalent(training: Any, images: Tensor, most: int) -> list[int]:
    """The numbers of threads, from `most` down, with which a step has the same result.

    Gradients are compared too, because Adam's first step depends on little more than their signs.
    """
    numbers: list[int] = []
    with suppress(RuntimeError):  # a student's model may hold tensors that cannot be copied
        for number in [most >> i for i in range(most.bit_length())]:
            copy = deepcopy(training)
            torch.set_num_threads(number)
            copy.take_step(images)
            pairs = [(p, p.grad) for p in copy.model.parameters()]
            result = parameters_to_vector(x for pair in pairs for x in pair if x is not None)
            if not numbers:
                expected = result
            if torch.equal(result, expected):
                numbers.append(number)
    return numbers


def _timed(
    take_step: Callable[[Tensor], Tensor], trials: Generator[None, float, None]
) -> Callable[[Tensor], Tensor]:
    """A training step that sends its seconds to the trials."""
    next(trials)

    def step(images: Tensor) -> Tensor:
        """Take a step, and report its seconds."""
        started = time.perf_counter()
        losses = take_step(images)
        trials.send(time.perf_counter() - started)
        return losses

    return step


def _trials(numbers: Sequence[int]) -> Generator[None, float, None]:
    """Receive the seconds of each step; now and then try the neighbours of the number in use.

    Each number is half of the one before it. The first one is used first.
    """
    place = 0
    while True:
        waited = 0.0
        while waited < SECONDS_BETWEEN_TRIALS:
            waited += yield
        seconds = dict.fromkeys(range(max(0, place - 1), min(place + 2, len(numbers))), 0.0)
        for candidate in seconds:
            torch.set_num_threads(numbers[candidate])
            yield  # the first step with another number is not typical
            for _ in range(STEPS_OF_A_TRIAL):
                seconds[candidate] += yield
        place = min(seconds, key=lambda each: seconds[each] * GAIN**each)
        torch.set_num_threads(numbers[place])
