"""The number of PyTorch's threads, which follows the load of the machine."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

SECONDS_BETWEEN_TRIALS = 4.0
STEPS_OF_A_TRIAL = 5
GAIN = 1.1  # Half the threads are used only if they are faster by this factor, not by chance.

Step = Callable[[Tensor], Tensor]


def training_step(training: Any, images: Tensor) -> AbstractContextManager[Step]:
    """`following_load` for the steps of a training; with several processes the number is fixed.

    Args:
        training: a `train.Training`.
        images: a batch, of which copies of `training` take a step.
    """
    if training.processes.size > 1:
        return nullcontext(training.take_step)
    return following_load(
        training.take_step, partial(_result_of_step, training, images), training.device
    )


@contextmanager
def following_load(
    step: Step, result: Callable[[], Tensor], device: torch.device
) -> Iterator[Step]:
    """Let the number of threads follow the load of the machine inside the block.

    Two threads are faster than one on a quiet machine, but much slower beside another program,
    because each waits for the other. Only numbers with which a result is the same, bit by bit, are
    used. The number is fixed on a GPU, and if the user sets it in OMP_NUM_THREADS.

    Args:
        step: the function to time, which is called many times.
        result: computes the same as `step`, and changes nothing.

    Yields:
        the step to call.
    """
    if device.type != "cpu" or os.environ.get("OMP_NUM_THREADS"):
        yield step
        return
    most = torch.get_num_threads()
    try:
        numbers = _equivalent(result, most)
        torch.set_num_threads(most)
        yield _timed(step, _trials(numbers)) if numbers[1:] else step
    finally:
        torch.set_num_threads(most)


def _result_of_step(training: Any, images: Tensor) -> Tensor:
    """The parameters and gradients of a copy of a training after a step.

    Adam's first step depends on little more than the signs of the gradients.
    """
    copy = deepcopy(training)
    copy.take_step(images)
    pairs = [(p, p.grad) for p in copy.model.parameters()]
    return parameters_to_vector(x for pair in pairs for x in pair if x is not None)


def _equivalent(result: Callable[[], Tensor], most: int) -> list[int]:
    """The numbers of threads, `most` and its halves, with which the result is the same."""
    results: dict[int, Tensor] = {}
    with suppress(RuntimeError):  # a student's model may hold tensors that cannot be copied
        for number in [most >> i for i in range(most.bit_length())]:
            torch.set_num_threads(number)
            results[number] = result()
    return [number for number in results if torch.equal(results[number], results[most])]


def _timed(step: Step, trials: Generator[None, float, None]) -> Step:
    """The step, whose seconds are sent to the trials."""
    next(trials)

    def timed(images: Tensor) -> Tensor:
        """Call the step, and report its seconds."""
        started = time.perf_counter()
        result = step(images)
        trials.send(time.perf_counter() - started)
        return result

    return timed


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
