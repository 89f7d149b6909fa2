"""Provides the inputs of functions, their right answers, and the answers of known mistakes."""

import json
import secrets
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch

from assignment import ROOT
from assignment.answers import Answers, Mistake, Quantity, explain
from assignment.describe import describe
from assignment.inputs import Inputs, ask
from assignment.probe import Record

NUMBERS = ROOT / "assignment" / "numbers.json"
HAS_SOLUTION = NUMBERS.with_name("mistakes.md").exists()  # A hand-out has neither.
# Inputs are new in each process if our solution is here to answer them. A hand-out knows the
# answers of seed 0 alone.
SEED = secrets.randbits(31) if HAS_SOLUTION else 0


def inputs_of(task: str, seed: int) -> Inputs:
    """The inputs of a task; for "train" the assignment's test images (100, 784), from a file."""
    if task != "train":
        return ask(task, seed)
    packed = bytes.fromhex(numbers()["images"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, 784)
    return {"images": torch.from_numpy(bits).float()}


@cache
def numbers() -> Any:
    """The test images, and for each task right and wrong answers to the inputs of seed 0."""
    return json.loads(NUMBERS.read_text())


def unpacked(parts: dict[str, Any]) -> Answers:
    """Answers in `numbers`."""
    return {name: {key: Quantity(*x) for key, x in part.items()} for name, part in parts.items()}


@cache
def right_answers(task: str, seed: int) -> Answers:
    """The right answers to the inputs of a seed; without our solution only those of seed 0."""
    if seed == 0:
        return unpacked(numbers()[task]["right"])
    from assignment import mistakes

    return mistakes.answers(task, seed)


def explanation(
    task: str, record: Record, called: set[str], passed: set[str], failed: set[str]
) -> tuple[list[Mistake], set[str]]:
    """The known mistakes behind an answer to the inputs of seed 0, and the parts left over."""
    found: Answers = {}
    with suppress(Exception):  # There may be no such answer.
        found = describe(task, inputs_of(task, 0), record)
    rows = numbers()[task]["wrong"]
    mistakes = (Mistake(sentence, name, unpacked(parts)) for sentence, name, parts in rows)
    possible = (each for each in mistakes if each.is_possible(called, passed, failed))
    return explain(task, found, right_answers(task, 0), possible)
