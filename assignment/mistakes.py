"""The right answers, and those of the mistakes in mistakes.md, computed with our solution.

python -m assignment.mistakes [DATA_DIR] writes numbers.json, from which a hand-out's check reads
both; with the folder of MNIST also the assignment's test images.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from assignment import ROOT
from assignment.answers import SIGMAS, Answers, Mistake, Quantity, wrong_parts
from assignment.describe import describe
from assignment.inputs import NUMBERS, Decoder, Encoder, ask, numbers
from assignment.probe import RESULTS, probe
from assignment.student import model_with
from codebase import utils
from codebase.models import vae

TEXT = ROOT / "assignment" / "mistakes.md"
PICTURE = "def visualize_samples(model): x = model.sample_x(200); return grid(x, 10, 20)"
# The bounds of correct runs after training, and how far others may be from them.
BOUNDS = Quantity((100.0, 19.5, 81.5), (2.0, 2.0, 2.5))


@cache
def table() -> dict[str, list[tuple[str, str]]]:
    """For each function the lines of its mistakes, with their sentences."""
    text = TEXT.read_text(encoding="utf-8")
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return {name: re.findall(r"\n\| `(.*)` \| (.*) \|", section) for name, section in sections}


def source(name: str) -> str:
    """The code of our function for a task; that of visualize_samples without the drawing."""
    if name == "visualize_samples":
        return PICTURE
    owner = utils if hasattr(utils, name) else vae.VAE
    return textwrap.dedent(inspect.getsource(getattr(owner, name)))


def solution(task: str, function: str, line: str) -> Callable[..., Any]:
    """Our functions by name for `probe`, with a wrong line in one of them."""
    space: dict[str, Any] = {**vars(vae), **vars(utils), "grid": picture, "enlarged": enlarged}
    for name in {task, function or task}:
        tree: Any = ast.parse(source(name))
        body = tree.body[0].body
        for statement in ast.parse(line).body if name == function else ():
            # It replaces the statement that begins with the same word, or is put first.
            word, *words = (ast.unparse(old).split()[0] for old in (statement, *body))
            place = words.index(word) if word in words else 0
            body[place : place + (word in words)] = [statement]
        exec(compile(tree, "<mistake>", "exec"), space)
    space["utils"] = SimpleNamespace(**space)

    def get(enc: Encoder, dec: Decoder, name: str) -> Callable[..., Any]:
        is_method = hasattr(vae.VAE, name) or name == "visualize_samples"
        return partial(space[name], model_with(enc, dec)) if is_method else space[name]

    return get


def picture(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A picture of images (n, 784)."""
    from codebase.pictures.drawing import image_grid  # imports Matplotlib, which is slow

    return enlarged(255 * image_grid(x.detach().float(), rows, columns))


def enlarged(x: torch.Tensor) -> torch.Tensor:
    """A picture (height, width, 1), three by three pixels for each of x (height, width)."""
    return x.byte().repeat_interleave(3, 0).repeat_interleave(3, 1)[..., None]


@cache
def answers(task: str, seed: int, function: str = "", line: str = "") -> Answers:
    """The answers of our solution, with a wrong line in one of its functions or not."""
    if task == "train":
        values = ast.literal_eval(line.removeprefix("return ")) if line else BOUNDS.values
        errors = (2.0, 2.0, 2.0) if line else BOUNDS.errors
        both = zip(RESULTS["negative_elbo_bound"], values, errors, strict=True)
        return {"bounds": {name: Quantity([x], [error / SIGMAS]) for name, x, error in both}}
    inputs = ask(task, seed)
    return describe(task, inputs, probe(task, solution(task, function, line), inputs))


def mistakes(task: str, seed: int) -> Iterator[Mistake]:
    """The mistakes in the task's function and in those that it calls, if they change its answer."""
    code = f"{task}({source(task)}" if task != "train" else "train("
    functions = [name for name in table() if f"{name}(" in code]
    for function in sorted(functions, key=lambda name: name != task):
        for line, sentence in table()[function]:
            with suppress(Exception):  # The changed function may fail.
                found = answers(task, seed, function, line)
                if wrong := wrong_parts(found, answers(task, seed)):
                    yield Mistake(sentence, function, {x: found.get(x, {}) for x in wrong})


def main() -> None:
    """Write numbers.json."""
    torch.set_num_threads(1)  # The tensors are small.
    content = numbers()
    if sys.argv[1:]:
        from codebase.datasets.loading import load

        bits = load("mnist", Path(sys.argv[1])).subset_bits.bool().numpy()
        content["images"] = np.packbits(bits).tobytes().hex()
    for task in table():
        content[task] = {"right": answers(task, 0), "wrong": [*mistakes(task, 0)]}
    ordered = json.dumps({key: content[key] for key in ["images", *table()]})
    rounded = json.loads(ordered, parse_float=lambda digits: float(f"{float(digits):.7g}"))
    text = json.dumps(rounded, separators=(",", ":")).replace("}],[", "}],\n[")
    NUMBERS.write_text(text + "\n")


if __name__ == "__main__":
    main()
