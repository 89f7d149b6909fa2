"""The number of PyTorch's threads, which follows the load of the machine while a run trains."""

import os
import time
from collections.abc import Callable, Generator
from typing import TypeVar

import torch

T = TypeVar("T")
SECONDS_BETWEEN_TRIALS = 3.0
STEPS_OF_A_TRIAL = 8


def following_load(take_step: Callable[..., T]) -> Callable[..., T]:
    """Wrap a training step on the CPU so that the number of threads follows the machine's load.

    Two threads are faster than one on a quiet machine, and half as fast beside another program,
    because each waits for the other. The result does not depend on the number, since MKL_CBWR says
    that MKL adds in a fixed order; without that, or if the user sets a number, nothing is wrapped.
    """
    adjustable = "STRICT" in os.environ.get("MKL_CBWR", "") and torch.backends.mkl.is_available()
    if not adjustable or os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads() == 1:
        return take_step
    trials = _trials(torch.get_num_threads())
    next(trials)

    def step(*arguments: object) -> T:
        """Take the step, and report its seconds."""
        started = time.perf_counter()
        result = take_step(*arguments)
        trials.send(time.perf_counter() - started)
        return result

    return step


def _trials(most: int) -> Generator[None, float, None]:
    """Receive the seconds of each step; now and then try half and twice as many threads.

    The number that takes a few steps in the least time remains.
    """
    number = most
    while True:
        waited = 0.0
        while waited < SECONDS_BETWEEN_TRIALS:
            waited += yield
        seconds: dict[int, float] = {}
        for candidate in (number, number // 2, number * 2):
            if 1 <= candidate <= most:
                torch.set_num_threads(candidate)
                yield  # the first step with another number is not typical
                seconds[candidate] = 0.0
                for _ in range(STEPS_OF_A_TRIAL):
                    seconds[candidate] += yield
        number = min(seconds, key=seconds.__getitem__)
        torch.set_num_threads(number)
