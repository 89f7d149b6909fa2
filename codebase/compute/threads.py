"""The number of PyTorch's threads, which follows the load of the machine."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from codebase.compute.processor import is_number_of_user

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
        result: computes, without effects, what has to be the same.

    Yields:
        the step to call.
    """
    most = torch.get_num_threads()
    if device.type != "cpu" or most == 1 or is_number_of_user():
        yield step
        return
    try:
        numbers = _equivalent(result, most)
        torch.set_num_threads(most)
        yield _timed(step, _trials(numbers)) if numbers[1:] else step
    finally:
        torch.set_num_threads(most)


def _result_of_step(training: Any, images: Tensor) -> Tensor:
    """The parameters and gradients of a copy of a training after a step.

    The gradients are included, because Adam's first step depends on little more than their signs.
    """
    copy = deepcopy(training)
    copy.take_step(images)
    pairs = [(p, p.grad) for p in copy.model.parameters()]
    return parameters_to_vector(x for pair in pairs for x in pair if x is not None)


def _equivalent(result: Callable[[], Tensor], most: int) -> list[int]:
    """The numbers of threads, `most` and its halves, with which the result is the same."""
    results: dict[int, Tensor] = {}
    # Without a result, for example of a model that cannot be copied, the number stays.
    with suppress(RuntimeError):
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
    place, seconds = 0, dict[int, float]()
    while True:
        waited = 0.0
        # Trials take a small part of the time, also if a step is long.
        while waited < max(SECONDS_BETWEEN_TRIALS, 20 * sum(seconds.values())):
            waited += yield
        seconds = dict.fromkeys(range(max(0, place - 1), min(place + 2, len(numbers))), 0.0)
        for candidate in seconds:
            torch.set_num_threads(numbers[candidate])
            yield  # the first step with another number is not typical
            for _ in range(STEPS_OF_A_TRIAL):
                seconds[candidate] += yield
        place = min(seconds, key=lambda each: seconds[each] * GAIN**each)
        torch.set_num_threads(numbers[place])
