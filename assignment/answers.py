"""What a function returned, described by numbers that can be compared with expected ones."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

SIGMAS = 7  # Two samples of the same distribution differ by more once in a million times.


class Quantity(NamedTuple):
    """Numbers and their standard errors, which are 0 where nothing is random."""

    values: Sequence[float] = ()
    errors: Sequence[float] = ()

    def distance(self, expected: "Quantity") -> float:
        """The largest difference from the expected numbers, as a share of the tolerated one."""
        if len(self.values) != len(expected.values):
            return math.inf
        shares = [0.0]
        for found, value, error in zip(self.values, *expected, strict=True):
            if found != value and not (math.isnan(found) and math.isnan(value)):
                share = abs(found - value) / tolerance(value, error)
                shares.append(math.inf if math.isnan(share) else share)
        return max(shares)


def tolerance(value: float, error: float) -> float:
    """How far a number may be from an expected one."""
    return 1e-4 * (1 + abs(value)) + SIGMAS * error


SHOWN = "shown"  # the part whose numbers are only shown

# The parts of an answer do not depend on each other: a mistake in one leaves the others right. The
# key of a quantity says what it is.
Part = dict[str, Quantity]
Answers = dict[str, Part]


class Mistake(NamedTuple):
    """A known mistake: a sentence, the function that it is in, and the parts that it changes."""

    sentence: str
    function: str
    parts: Answers


def exact(values: Tensor | float) -> Quantity:
    """Numbers without chance."""
    numbers = values.double().flatten().tolist() if isinstance(values, Tensor) else [float(values)]
    return Quantity(numbers, [0.0] * len(numbers))


def average(samples: Tensor) -> Quantity:
    """Means over the first dimension, with their standard errors."""
    n = len(samples)
    errors = samples.double().std(0) / n**0.5 if n > 1 else 0 * samples[0]
    errors = 2 * errors if n < 5 else errors  # few samples say little about their spread
    return Quantity(samples.double().mean(0).flatten().tolist(), errors.flatten().tolist())


def different(found: Part, expected: Part) -> list[str]:
    """Keys of quantities that do not agree, or that only one of the two has.

    A gradient counts only if it is expected: those of wrong values are as wrong.
    """
    keys = dict.fromkeys([*expected, *(key for key in found if "gradient" not in key)])
    both = found.keys() & expected.keys()
    return [key for key in keys if key not in both or found[key].distance(expected[key]) > 1]


def wrong_parts(found: Answers, expected: Answers) -> set[str]:
    """Names of the parts that differ."""
    names = (found.keys() | expected.keys()) - {SHOWN}
    return {name for name in names if different(found.get(name, {}), expected.get(name, {}))}


def distance(found: Answers, mistake: Mistake) -> float:
    """How far an answer is from what a mistake predicts for the parts that it changes."""
    changed = {name: found.get(name, {}) for name in mistake.parts}
    if wrong_parts(changed, mistake.parts):
        return math.inf
    both = [(changed[name], part) for name, part in mistake.parts.items()]
    return max([0.0, *(ours[key].distance(x) for ours, part in both for key, x in part.items())])


def explain(
    found: Answers, right: Answers, mistakes: Iterable[Mistake]
) -> tuple[list[Mistake], set[str]]:
    """The fewest and nearest known mistakes that explain the wrong parts, and the parts left over.

    A mistake counts only if all parts that it changes came out as it predicts.
    """
    unexplained = wrong_parts(found, right)
    matching, told = list[tuple[float, Mistake]](), list[Mistake]()
    for mistake in mistakes:
        if any(
            x.function != mistake.function and unexplained <= x.parts.keys() for _, x in matching
        ):
            break  # A function's own mistakes come before those of functions that it calls.
        if mistake.parts and (far := distance(found, mistake)) <= 1:
            matching.append((far, mistake))
            if far < 0.01 and unexplained <= mistake.parts.keys():
                break  # No other one can be nearer.
    while matching:
        _, best = min(
            matching, key=lambda each: (-len(each[1].parts.keys() & unexplained), each[0])
        )
        if not best.parts.keys() & unexplained:
            break
        told.append(best)
        unexplained -= best.parts.keys()
    return told, unexplained
