"""Answers: what a function returned, as numbers that can be compared with expected ones.

An answer has parts that do not depend on each other: a mistake in one leaves the others right. The
key of a quantity says what it is; a quantity without numbers is a fact, such as a wrong shape.
"""

import math
from collections.abc import Iterable, Sequence, Set
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from assignment.inputs import numbers

SIGMAS = 7  # Two samples of the same distribution differ by more once in a million times.
SHOWN = "shown"  # the part whose numbers are only shown
GRADIENT = "gradient of "  # begins the name of a part that has the gradients of another one


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
                share = abs(found - value) / (1e-4 * (1 + abs(value)) + SIGMAS * error)
                shares.append(math.inf if math.isnan(share) else share)
        return max(shares)


Part = dict[str, Quantity]
Answers = dict[str, Part]


class Mistake(NamedTuple):
    """A known mistake: a sentence, the function that it is in, and the parts that it changes."""

    sentence: str
    function: str
    parts: Answers

    def is_possible(self, called: Set[str], failed: Set[str]) -> bool:
        """Whether it can be in one of the functions called, some of which have failed."""
        # If two functions are wrong, NIWAE does not show which mistake is whose. A wrong kl_normal
        # does not matter, since it changes only the KL.
        is_alone = self.function in failed or not failed - {"kl_normal"}
        return self.function in called and (is_alone or "NIWAE" not in self.parts)

    def distance(self, found: Answers) -> float:
        """The largest distance of an answer from the parts that it predicts."""
        shares = [0.0]
        for name, part in self.parts.items():
            sent = found.get(name, {})
            if sent.keys() != part.keys():
                return math.inf
            shares += [sent[key].distance(expected) for key, expected in part.items()]
        return max(shares)


def unpacked(parts: dict[str, Any]) -> Answers:
    """Answers as they are stored in numbers.json, with each list as a Quantity."""
    return {name: {key: Quantity(*x) for key, x in part.items()} for name, part in parts.items()}


def known_mistakes(task: str) -> list[Mistake]:
    """The mistakes in a task, with their answers to the inputs of seed 0."""
    rows = numbers()[task]["wrong"]
    return [Mistake(sentence, function, unpacked(parts)) for sentence, function, parts in rows]


@cache
def right_answers(task: str, seed: int) -> Answers:
    """The right answers to the inputs of a seed; without our solution only those of seed 0."""
    if seed == 0:
        return unpacked(numbers()[task]["right"])
    from assignment import mistakes

    return mistakes.answers(task, seed)


def exact(values: Tensor | float) -> Quantity:
    """Numbers without chance."""
    each = values.double().flatten().tolist() if isinstance(values, Tensor) else [float(values)]
    return Quantity(each, [0.0] * len(each))


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
    return [key for key in keys if key not in both or found[key].distance(expected[key]) > 1]


def wrong_parts(found: Answers, right: Answers) -> dict[str, list[str]]:
    """The parts that differ, with the keys that do.

    The name of a gradient has those of the values that it belongs to. If any of these is wrong, it
    does not count.
    """
    wrong = dict[str, list[str]]()
    for name in dict.fromkeys([*right, *found]):  # A value comes before its gradients.
        keys = differing(found.get(name, {}), right.get(name, {}))
        is_undefined = wrong.keys() & {*name.split()} or name not in found
        if keys and name != SHOWN and not (name.startswith(GRADIENT) and is_undefined):
            wrong[name] = keys
    return wrong


def explain(
    task: str, found: Answers, right: Answers, mistakes: Iterable[Mistake]
) -> list[Mistake]:
    """Known mistakes that explain the wrong parts.

    A mistake counts only if all parts that it changes came out as it predicts. Those that explain
    most come first; of these, those in the task's own function, then the nearest.
    """
    wrong, told = wrong_parts(found, right).keys(), list[Mistake]()
    unexplained = {*wrong}
    # Parts that a mistake changes by less than the tolerance are not wrong.
    agreeing = [
        (-len(parts), mistake.function != task, distance, parts, mistake)
        for mistake in mistakes
        if (parts := wrong & mistake.parts.keys()) and (distance := mistake.distance(found)) <= 1
    ]
    for *_, parts, mistake in sorted(agreeing, key=lambda each: each[:3]):
        if parts <= unexplained:
            told.append(mistake)
            unexplained -= parts
    return told
