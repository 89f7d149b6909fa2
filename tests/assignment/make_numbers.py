"""Write assignment/numbers.json: what right solutions answer, and the wrong ones of mistakes.md.

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

from assignment.answers import Networks, answers
from assignment.check import NUMBERS, differing
from codebase import utils
from codebase.models import vae
from codebase.pictures.drawing import image_grid

TEXT = NUMBERS.with_name("mistakes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
MODEL = vae.VAE()
SOURCES = {  # of two tasks, what is looked at
    "train": "def train(): return 100.0, 19.5, 82.0",
    "visualize_samples": "def visualize_samples(): x = model.sample_x(200); return grid(x, 10, 20)",
}


def source(name: str) -> str:
    """The code of our function of that name."""
    owner = utils if hasattr(utils, name) else vae.VAE
    return SOURCES.get(name) or textwrap.dedent(inspect.getsource(getattr(owner, name)))


def solution(name: str, function: str, line: str) -> Any:
    """Our function of that name, with a wrong line in it or in a function that it calls."""
    space = {**vars(vae), **vars(utils), "model": MODEL, "grid": image_grid}
    for each in {name, function}:
        tree: Any = ast.parse(source(each))
        body = tree.body[0].body
        for new in ast.parse(line).body if each == function else ():
            word, *words = (ast.unparse(old).split()[0] for old in (new, *body))
            at = words.index(word) if word in words else 0
            body[at : at + (word in words)] = [new]
        exec(compile(tree, "<mistake>", "exec"), space)
    space["utils"] = type("utils", (), space)
    method = "self" in source(name)
    return (lambda *given: space[name](MODEL, *given)) if method else space[name]


def expected(name: str, function: str, line: str, times: int) -> dict[str, list[list[float]]]:
    """What that solution answers, and five standard errors of it."""
    asked, seen, result = solution(name, function, line), [], {}
    for seed in range(times):
        torch.manual_seed(seed)
        MODEL.enc = MODEL.dec = nets = Networks(name)
        seen.append(answers(name, asked, nets))
    for words, first in seen[0].items():
        values = torch.tensor([each.get(words, first) for each in seen]).double()
        mean, errors = values.mean(0), 5 * values.std(0) + 1e-4 * (1 + values.mean(0).abs())
        errors = errors if name != "train" else 0 * errors + 2  # of one run, in nats
        result[words] = [
            [float(f"{x:.{digits}g}") for x in each] for each, digits in ((mean, 7), (errors, 3))
        ]
    return result


def known(name: str) -> dict[str, Any]:
    """What is right in a task, the smallest example, and what each mistake changes."""
    right, wrong, code = expected(name, name, "", 100), [], f"{name}({source(name)}"
    functions = [each for each in SECTIONS if f"{each}(" in code]
    for function in sorted(functions, key=lambda each: each != name):  # its own mistakes first
        for line, sentence in re.findall(r"\n\| `(.*)` \| (.*) \|", SECTIONS[function]):
            with suppress(Exception):  # it does not fit where it is called
                made = expected(name, function, line, 10)
                if changed := differing({words: each[0] for words, each in made.items()}, right):
                    both = made.keys() & right.keys()
                    changed += [w for w in both if any(map(wider, made[w][1], right[w][1]))]
                    wrong.append((sentence, {words: made.get(words) for words in changed}))
    example = " ".join(re.findall(r"^> (.*)", SECTIONS[name], re.MULTILINE))
    return {"right": right, "example": example, "wrong": wrong}


def wider(error: float, other: float) -> bool:
    """Whether an error is larger than another, by more than both are uncertain."""
    return error > 2 * other


if __name__ == "__main__":
    new = {name: known(name) for name in sys.argv[1:] or SECTIONS}
    old = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    text = json.dumps({name: (old | new)[name] for name in SECTIONS}, separators=(",", ":"))
    NUMBERS.write_text(text.replace('}],["', '}],\n["') + "\n")  # a line for each mistake
