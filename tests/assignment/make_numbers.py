"""Write assignment/numbers.json: the answers of our solution, and of the mistakes in mistakes.md.

python -m tests.assignment.make_numbers [FUNCTION ...]
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from contextlib import suppress
from typing import Any

import torch

from assignment.answers import Answers, Networks, collect_answers
from assignment.check import NUMBERS, Ranges, mismatched_keys
from codebase import utils
from codebase.models import vae
from codebase.pictures.drawing import image_grid

TEXT = NUMBERS.with_name("mistakes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
MODEL = vae.VAE()
SOURCES = {  # The code in the place of functions that train or plot.
    "train": "def train(): return 100.0, 19.5, 82.0",
    "visualize_samples": "def visualize_samples(): x = model.sample_x(200); return grid(x, 10, 20)",
}


def source(name: str) -> str:
    """The code of our function for a task."""
    owner = utils if hasattr(utils, name) else vae.VAE
    return SOURCES.get(name) or textwrap.dedent(inspect.getsource(getattr(owner, name)))


def solution(name: str, function: str, line: str) -> Any:
    """Our function for a task, with a wrong line in it or in a function that it calls."""
    space = {**vars(vae), **vars(utils), "model": MODEL, "grid": image_grid}
    for each in {name, function}:
        tree: Any = ast.parse(source(each))
        body = tree.body[0].body
        for statement in ast.parse(line).body if each == function else ():
            # It replaces the statement that begins with the same word, or is put first.
            word, *words = (ast.unparse(old).split()[0] for old in (statement, *body))
            place = words.index(word) if word in words else 0
            body[place : place + (word in words)] = [statement]
        exec(compile(tree, "<mistake>", "exec"), space)
    space["utils"] = type("utils", (), space)
    is_method = "self" in source(name)
    return (lambda *arguments: space[name](MODEL, *arguments)) if is_method else space[name]


def ranges(name: str, function: str, line: str, times: int) -> Ranges:
    """The answers of that solution, averaged over seeds, and five of their standard deviations."""
    tested = solution(name, function, line)
    samples: list[Answers] = []
    for seed in range(times):
        torch.manual_seed(seed)
        MODEL.enc = MODEL.dec = networks = Networks(name)
        samples.append(collect_answers(name, tested, networks))
    result = {}
    for key, first in samples[0].items():
        values = torch.tensor([answers.get(key, first) for answers in samples]).double()
        mean = values.mean(0)
        errors = 5 * values.std(0) + 1e-4 * (1 + mean.abs())
        if name == "train":
            errors = 0 * errors + 2  # The spread of single runs, in nats.
        result[key] = [
            [float(f"{x:.{digits}g}") for x in each] for each, digits in ((mean, 7), (errors, 3))
        ]
    return result


def known(name: str) -> dict[str, Any]:
    """The right answers of a task, its example, and the answers that each mistake changes."""
    right, wrong = ranges(name, name, "", 100), []
    code = f"{name}({source(name)}"
    functions = [each for each in SECTIONS if f"{each}(" in code]
    for function in sorted(functions, key=lambda each: each != name):  # Its own come first.
        for line, sentence in re.findall(r"\n\| `(.*)` \| (.*) \|", SECTIONS[function]):
            with suppress(Exception):  # Some mistakes make the calling function fail.
                made = ranges(name, function, line, 10)
                if changed := mismatched_keys({key: each[0] for key, each in made.items()}, right):
                    both = made.keys() & right.keys()
                    changed += [key for key in both if any(map(wider, made[key][1], right[key][1]))]
                    wrong.append((sentence, {key: made.get(key) for key in changed}))
    example = " ".join(re.findall(r"^> (.*)", SECTIONS[name], re.MULTILINE))
    return {"right": right, "example": example, "wrong": wrong}


def wider(error: float, other: float) -> bool:
    """Whether an error is larger than another by more than chance."""
    return error > 2 * other


if __name__ == "__main__":
    new = {name: known(name) for name in sys.argv[1:] or SECTIONS}
    old = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    text = json.dumps({name: (old | new)[name] for name in SECTIONS}, separators=(",", ":"))
    NUMBERS.write_text(text.replace('}],["', '}],\n["') + "\n")  # One line per mistake.
