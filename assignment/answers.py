"""Answers: what a function returned, as numbers that can be compared with expected ones.

An answer has parts that do not depend on each other: a mistake in one leaves the others right. The
key of a quantity says what it is; a quantity without numbers is a fact, such as a wrong shape.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from assignment import TASKS

SIGMAS = 7  # Two samples of the same distribution differ by more once in a million times.
SHOWN = "shown"  # the part whose numbers are only shown
GRADIENT = "gradient of "  # begins the name of a part that has the gradients of another one


class Quantity(NamedTuple):
    """Numbers and their standard errors, which are 0 where nothing is random."""

    values: Sequence[float] = ()
    errors: Sequence[float] = ()

    def is_near(self, expected: "Quantity") -> bool:
        """Whether these numbers are the expected ones, up to rounding and chance."""
        return len(self.values) == len(expected.values) and all(
            found == value
            or (math.isnan(found) and math.isnan(value))
            or abs(found - value) <= 1e-4 * (1 + abs(value)) + SIGMAS * error
            for found, value, error in zip(self.values, *expected, strict=True)
        )


Part = dict[str, Quantity]
Answers = dict[str, Part]


class Mistake(NamedTuple):
    """A known mistake: a sentence, the function that it is in, and the parts that it changes."""

    sentence: str
    function: str
    parts: Answers

    def is_possible(self, called: set[str]) -> bool:
        """Whether it can be in a solution that calls these functions."""
        mentioned = {task.name for task in TASKS if task.name in self.sentence.split("see ")[0]}
        return self.function in called and mentioned - {"train"} <= called

    def agrees_with(self, found: Answers) -> bool:
        """Whether all parts that it changes came out as it predicts."""
        return not any(differing(found.get(name, {}), part) for name, part in self.parts.items())


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


def differing(found: Part, expected: Part) -> list[str]:
    """Keys of quantities that do not agree, or that only one of the two has."""
    both = found.keys() & expected.keys()
    keys = dict.fromkeys([*expected, *found])
    return [key for key in keys if key not in both or not found[key].is_near(expected[key])]


def wrong_parts(found: Answers, right: Answers) -> dict[str, list[str]]:
    """The parts that differ, with the keys that do. Gradients of wrong values do not count."""
    names = dict.fromkeys([*right, *found])
    keys = {name: differing(found.get(name, {}), right.get(name, {})) for name in names}
    wrong = {name: keys[name] for name in names if keys[name] and name != SHOWN}
    return {
        name: keys
        for name, keys in wrong.items()
        if not name.startswith(GRADIENT)
        or (name in found and name.removeprefix(GRADIENT) not in wrong)
    }


def explain(
    found: Answers, right: Answers, mistakes: Iterable[Mistake]
) -> tuple[list[Mistake], set[str]]:
    """The known mistakes that explain the wrong parts, and the parts left over.

    A mistake counts only if all parts that it changes came out as it predicts.
    """
    told, unexplained = list[Mistake](), {*wrong_parts(found, right)}
    for mistake in mistakes:
        if mistake.parts and mistake.agrees_with(found) and mistake.parts.keys() <= unexplained:
            told.append(mistake)
            unexplained -= mistake.parts.keys()
        if not unexplained:
            break
    return told, unexplained
