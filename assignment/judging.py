"""Grades a hand-in: compares the answers of its functions with the right ones."""

import ast
import base64
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE, Task
from assignment.answers import (
    SHOWN,
    Answers,
    Mistake,
    Quantity,
    different,
    explain,
    tolerance,
    wrong_parts,
)  # fmt: skip
from assignment.describe import SLOPE, describe, moments
from assignment.inputs import ask as question
from assignment.probe import Inputs, Record
from assignment.process import Reply, ask, project
from assignment.student import MODEL, measure_run
from assignment.submission import Submission
from codebase.system.errors import UserError

NUMBERS = ROOT / "assignment" / "numbers.json"
HAS_SOLUTION = NUMBERS.with_name("mistakes.md").exists()  # A hand-out has neither.
# Inputs are new in each process if our solution is here to answer them. A hand-out knows the
# answers of seed 0 alone.
SEED = secrets.randbits(31) if HAS_SOLUTION else 0
SECONDS = 60.0  # The time limit of a check. A single function may take a third of it.
ORDER = (UTILS, VAE, VISUALIZE)  # Each file imports those before it.
# Points for the parts of a task; those of all other tasks are given as a whole.
PARTS = {
    "negative_elbo_bound": {"KL": 2, "REC": 2, "NELBO": 1, "gradients": 1},
    "negative_iwae_bound": {"NELBO": 3, "KL": 1, "REC": 1},
}
USES = {"KL": "kl_normal", "REC": "log_bernoulli_with_logits", "z": "sample_gaussian"}
# Modules that no task needs, and that can look at the check or leave something behind.
WATCHED = {"builtins", "ctypes", "gc", "importlib", "inspect", "multiprocessing", "os", "requests"}
WATCHED |= {"shutil", "signal", "socket", "subprocess", "sys", "threading", "urllib"}
BUILTIN = {"exec", "eval", "open", "__import__"}


class Result(NamedTuple):
    """The points of a task, and sentences for the student."""

    task: Task
    points: int
    lines: list[str]


class Report(NamedTuple):
    """The results of all tasks, and sentences about the hand-in."""

    results: list[Result]
    for_student: list[str]
    for_teacher: list[str]


def known(task: str, called: set[str]) -> tuple[Answers, Iterable[Mistake]]:
    """The right answers, and those of mistakes in the called functions."""
    if HAS_SOLUTION:
        from assignment import mistakes

        return mistakes.right(task, SEED), mistakes.mistakes(task, SEED, called)
    numbers = json.loads(NUMBERS.read_text())[task]

    def answers(parts: dict[str, Any]) -> Answers:
        return {
            name: {key: Quantity(*x) for key, x in part.items()} for name, part in parts.items()
        }

    wrong = (Mistake(x, name, answers(parts)) for x, name, parts in numbers["wrong"])
    functions = {task.name for task in TASKS}
    return answers(numbers["right"]), (
        each
        for each in wrong
        if each.function in called
        and {x for x in functions if x in each.sentence} <= called | {"train"}
    )


def grade(
    submission: Submission,
    tasks: Sequence[Task],
    run: bytes | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
    seconds: float = SECONDS,
) -> Report:
    """Check tasks of a hand-in, with new random inputs if our solution is here to answer them.

    Args:
        run: the file of a trained model, for the task "train".
        on_result: called after each task.
        seconds: the time limit of the whole check.
    """
    left = seconds
    results = list[Result]()
    broken = dict[str, str]()  # for a file that cannot be imported the reason
    notes = dict[str, str]()
    with project(submission) as folder:
        (folder / MODEL).write_bytes(run or b"")
        for task in sorted(tasks, key=lambda task: task.file != UTILS):  # others use these
            file = task.file or VAE
            reasons = [broken[each] for each in ORDER[: ORDER.index(file) + 1] if each in broken]
            by_us = task.name == "train" and HAS_SOLUTION
            if file not in submission.files and not by_us:
                reply = Reply({}, f"{Path(file).name} was not sent")
            elif task.name == "train" and run is None:
                reply = Reply({}, f"there is no {MODEL} of a run with the assignment's settings")
            elif by_us:
                reply = measure(folder / MODEL)
            elif reasons:
                reply = Reply({}, f"as above: {reasons[0]}")
            elif left < 1:
                reply = Reply({}, f"the check reached its limit of {seconds:.0f} seconds before")
            else:
                most = seconds if task.file == VISUALIZE else seconds / 3
                reply = ask(folder, task.name, file, inputs_of(task.name), min(left, most))
                left -= reply.used
                if reply.at_import:
                    broken[file] = reply.failure
                for note in reply.notes:
                    notes.setdefault(note[:10], note)  # one of each kind
            failed = {each.task.name for each in results if each.points < each.task.points}
            results.append(judge(task, reply, failed))
            on_result(results[-1])
    results.sort(key=lambda result: tasks.index(result.task))
    return Report(results, [*submission.notes, *notes.values()], suspicious(submission))


def measure(path: Path) -> Reply:
    """The bounds of a trained model by our solution."""
    from codebase.models.vae import VAE

    try:
        return Reply(measure_run(VAE, path, inputs_of("train")["images"]), "")
    except UserError as error:
        return Reply({}, str(error).replace(f"{path.parent}{os.sep}", ""))


def inputs_of(task: str) -> Inputs:
    """The inputs of a task; for "train" the assignment's test images (100, 784), from a file."""
    if task != "train":
        return question(task, SEED)
    packed = base64.b64decode(json.loads(NUMBERS.read_text())["images"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, 784)
    return {"images": torch.from_numpy(bits).float()}


def judge(task: Task, reply: Reply, failed: set[str]) -> Result:
    """Compare the answer of a student's function with the right one, given the failed tasks."""
    if reply.failure:
        return Result(task, 0, [reply.failure])
    try:
        found = describe(task.name, inputs_of(task.name), reply.record)
    except Exception:  # A student's process may send anything.
        return Result(task, 0, ["its process sent an answer of a wrong form"])
    called = {*str(reply.record.get("called", "")).split(), task.name}
    called |= {"sample_gaussian", "sample_x"} if task.file == VISUALIZE else set()
    right, mistakes = known(task.name, called)
    wrong = wrong_parts(found, right)
    if not wrong:
        return Result(task, task.points, ["everything is right", *remarks(found, reply.record)])
    told, unexplained = explain(found, right, mistakes)
    sources = failed & called
    excused = {part for part in wrong if follows(part, told, found, reply.record, sources)}
    lines = [x.sentence for x in told if x.parts.keys() & wrong - excused]
    for part in sorted(excused):
        lines.append(f"{part} follows from {' and '.join(sorted(sources))}, and costs nothing here")
    if rest := sorted(unexplained - excused):
        lines.append(f"no known mistake explains {' and '.join(map(title, rest))}")
    points = score(task, found, right, wrong - excused)
    return Result(task, points, [*lines, *compared(task, found, right, wrong - excused)])


def follows(
    part: str, told: list[Mistake], found: Answers, record: Record, sources: set[str]
) -> bool:
    """Whether a part is wrong only because of failed functions, in which the mistake costs points.

    The bound's parts are compared with what the student's functions return for the same inputs.
    """
    if not sources:
        return False
    own = record.get(f"own {part}")
    if part == "z" and isinstance(own, Tensor) and "sample_gaussian" in sources:
        inputs = inputs_of("negative_elbo_bound")
        expected = moments(own, inputs["m"], inputs["v"])
        return not expected.keys() & {*different(found[part], expected)}
    if isinstance(own, Tensor) and (value := found[part].get(part)):
        mean = own.double().mean().item() * (-1 if part == "REC" else 1)
        if abs(value.values[0] - mean) <= tolerance(mean, 0):
            return True
    if told_here := [each for each in told if part in each.parts]:
        return all(each.function in sources for each in told_here)
    return (part in ("z", "NELBO", "samples") and "KL" not in found) or "samples" in found


def score(task: Task, found: Answers, right: Answers, wrong: set[str]) -> int:
    """The points of a task whose parts are wrong: each costs its own."""
    if task.name not in PARTS or "result" in wrong:
        return 0 if wrong else task.points
    lost = set()
    for part in wrong:
        keys = different(found.get(part, {}), right.get(part, {}))
        # Images that are compared with others' z have the same REC, but another gradient.
        is_value = ["gradient" not in key or (key == SLOPE and key in found[part]) for key in keys]
        lost.add({"z": "REC", "samples": "NELBO"}.get(part, part) if any(is_value) else "gradients")
    if {"KL", "REC", "NELBO"} <= lost:
        lost.add("gradients")
    return sum(points for name, points in PARTS[task.name].items() if name not in lost)


def compared(task: Task, found: Answers, right: Answers, wrong: set[str]) -> list[str]:
    """The numbers that differ; those of a bound as a table, with the cause first."""
    lines, tabled = [], set[str]()
    if task.name in PARTS and "result" not in wrong:
        for name, value in found[SHOWN].items():
            follow = name == "NELBO" and "NELBO" not in wrong and {"KL", "REC"} & wrong
            mark = "   <- look here" * (name in wrong) + "   follows" * bool(follow)
            ours = right[SHOWN][name]
            is_right = value.distance(ours) <= 1
            rest = ", right" if is_right else f", should be {shown(ours)}"
            mark = "" if is_right and name not in wrong else mark
            lines.append(f"{title(name, task)}: {shown(value)}{rest}{mark}")
            tabled |= {name} if name in right.get(name, {}) or "iwae" in task.name else set()
    for part in sorted(wrong):
        expected, theirs = right.get(part, {}), found.get(part, {})
        keys = different(theirs, expected)
        lines += [key for key in keys if key in theirs and not theirs[key].values][:2]
        numbers = [x for x in keys if x in theirs and x in expected and expected[x].values]
        for key in [key for key in numbers if key.split(" with ")[0] not in tabled][:3]:
            lines.append(f"{key}: {shown(theirs[key])}, should be {shown(expected[key])}")
    return lines


def title(part: str, task: Task | None = None) -> str:
    """The name of a part in a sentence."""
    if task and "iwae" in task.name and part == "NELBO":
        return "NIWAE"
    names = {"result": "the result", "picture": "the picture", "samples": "the number of samples"}
    return names.get(part, part)


def shown(quantity: Quantity) -> str:
    """Numbers as text, with tolerances where these matter."""
    if len(quantity.values) > 9:
        return f"{min(quantity.values):.4g} to {max(quantity.values):.4g}"
    texts = []
    for x, error in zip(*quantity, strict=True):
        texts.append(f"{x:.4g}±{7 * error:.1g}" if 7 * error > 1e-3 * abs(x) else f"{x:.4f}")
    return ", ".join(texts)


def remarks(found: Answers, record: Record) -> list[str]:
    """What is right, but differs from the text."""
    counts = record.get("latents")
    lines = [str(record["note"])] if record.get("note") else []
    if "samples" not in found and isinstance(counts, Tensor) and counts.mean() > 1.5:
        lines.append("several latents are decoded for each image: the text asks for one")
    kl = found.get(SHOWN, {}).get("KL")
    if "samples" in found and kl and kl.errors[0] > 1e-4:
        lines.append("KL is computed from samples: the closed form varies less")
    return lines


def suspicious(submission: Submission) -> list[str]:
    """Imports that a teacher should read."""
    lines = []
    for file, text in (submission.files | submission.helpers).items():
        names = set()
        with suppress(SyntaxError, ValueError):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(str(node.module).split(".")[0])
                elif isinstance(node, ast.Name):
                    names |= {node.id} & BUILTIN
        if watched := sorted(names & (WATCHED | BUILTIN)):
            lines.append(f"{Path(file).name} uses {', '.join(watched)}: read it")
    return lines
