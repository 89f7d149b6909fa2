"""Grades a hand-in: compares the answers of its functions with the right ones."""

import base64
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from assignment import ROOT, UTILS, VAE, VISUALIZE, Task
from assignment.answers import (
    GRADIENT,
    Answers,
    Mistake,
    Quantity,
    differing,
    explain,
    wrong_parts,
)
from assignment.describe import describe, describe_own
from assignment.inputs import ask as question
from assignment.probe import Inputs
from assignment.process import Reply, ask, project
from assignment.report import Result, compared, remarks
from assignment.student import MODEL, measure_run
from assignment.submission import Submission
from codebase.system.errors import UserError

NUMBERS = ROOT / "assignment" / "numbers.json"
HAS_SOLUTION = NUMBERS.with_name("mistakes.md").exists()  # A hand-out has neither.
# Inputs are new in each process if our solution is here to answer them. A hand-out knows the
# answers of seed 0 alone.
SEED = secrets.randbits(31) if HAS_SOLUTION else 0
ONE_AT_A_TIME = Lock()  # Known mistakes may set a seed.
SECONDS = 60.0  # The time limit of a check. A single function may take a third of it.
ORDER = (UTILS, VAE, VISUALIZE)  # Each file imports those before it.
# Points for the parts of a task; those of all other tasks are given as a whole.
PARTS = {
    "negative_elbo_bound": {"KL": 2, "REC": 2, "NELBO": 1, "gradients": 1},
    "negative_iwae_bound": {"NIWAE": 3, "KL": 1, "REC": 1},
}
USES: dict[str, str | None] = {"KL": "kl_normal", "z": "sample_gaussian"}
USES["REC"] = "log_bernoulli_with_logits"


def grade(
    submission: Submission,
    tasks: Sequence[Task],
    run: bytes | None = None,
    seconds: float = SECONDS,
) -> Iterator[Result]:
    """Check tasks of a hand-in, functions of utils.py first, because others use them.

    Args:
        run: the file of a trained model, for the task "train".
        seconds: the time limit of the whole check.
    """
    end = time.monotonic() + seconds
    failed, broken = set[str](), dict[str, str]()  # for a file that hangs at import a sentence
    with project(submission) as folder:
        (folder / MODEL).write_bytes(run or b"")
        for task in sorted(tasks, key=lambda task: task.file != UTILS):
            file = task.file or VAE
            reasons = [broken[each] for each in ORDER[: ORDER.index(file) + 1] if each in broken]
            left = min(end - time.monotonic(), seconds if file == VISUALIZE else seconds / 3)
            if task.name == "train" and run is None:
                reply = Reply({}, f"there is no {MODEL} of a run with the assignment's settings")
            elif task.name == "train" and HAS_SOLUTION:
                reply = measure(folder / MODEL)
            elif file not in submission.files:
                reply = Reply({}, f"{Path(file).name} was not sent")
            elif reasons:
                reply = Reply({}, f"as above: {reasons[0]}")
            elif left < 1:
                reply = Reply({}, f"the check reached its limit of {seconds:.0f} seconds before")
            else:
                reply = ask(folder, task.name, file, inputs_of(task.name), left)
                broken |= {file: reply.failure} if reply.at_import else {}
            with ONE_AT_A_TIME:
                result = judge(task, reply, failed)
            failed |= {task.name} if result.points < task.points else set()
            yield result


def measure(path: Path) -> Reply:
    """The bounds of a trained model by our solution."""
    from codebase.models import vae

    try:
        return Reply(measure_run(vae, path, inputs_of("train")["images"]), "")
    except UserError as error:
        return Reply({}, str(error).replace(f"{path.parent}{os.sep}", ""))


def inputs_of(task: str) -> Inputs:
    """The inputs of a task; for "train" the assignment's test images (100, 784), from a file."""
    if task != "train":
        return question(task, SEED)
    packed = base64.b64decode(json.loads(NUMBERS.read_text())["images"])
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, 784)
    return {"images": torch.from_numpy(bits).float()}


def known(task: str, called: set[str]) -> tuple[Answers, Iterator[Mistake]]:
    """The right answers, and those of mistakes in functions that a student's solution calls."""
    if HAS_SOLUTION:
        from assignment import mistakes

        return mistakes.answers(task, SEED), mistakes.mistakes(task, SEED, called)
    numbers = json.loads(NUMBERS.read_text())[task]

    def answers(parts: dict[str, Any]) -> Answers:
        return {
            name: {key: Quantity(*x) for key, x in part.items()} for name, part in parts.items()
        }

    rows = (Mistake(sentence, name, parts) for sentence, name, parts in numbers["wrong"])
    possible = (each for each in rows if each.is_possible(called))
    return answers(numbers["right"]), (x._replace(parts=answers(x.parts)) for x in possible)


def judge(task: Task, reply: Reply, failed: set[str]) -> Result:
    """Compare the answer of a student's function with the right one, given the failed tasks."""
    if reply.failure:
        return Result(task, 0, [reply.failure])
    inputs, record = inputs_of(task.name), reply.record
    try:
        found, own = describe(task.name, inputs, record), describe_own(inputs, record)
        called = {*str(record.get("called", "")).split(), task.name}
    except Exception:  # A student's process may send anything.
        return Result(task, 0, ["its process sent an answer of a wrong form"])
    called |= {"sample_gaussian", "sample_x"} if task.file == VISUALIZE else set()
    notes = [str(record["note"])] if record.get("note") else []
    right, mistakes = known(task.name, called)
    wrong = wrong_parts(found, right)
    if not wrong:
        return Result(task, task.points, ["everything is right", *notes, *remarks(task, found)])
    told, unexplained = explain(found, right, mistakes)
    sources = failed & called
    excused = {part for part in wrong if follows(part, found, own, told, sources)}
    lines = [x.sentence for x in told if x.parts.keys() - excused]
    for part in sorted(excused):
        makers = {USES.get(part.removeprefix(GRADIENT))} & sources or sources
        lines.append(f"{part} follows from {' and '.join(sorted(makers))}, and costs nothing here")
    if rest := sorted(unexplained - excused):
        lines.append(f"no known mistake explains the {' and the '.join(rest)}")
    wrong = {part: keys for part, keys in wrong.items() if part not in excused}
    lines += compared(task, found, right, wrong)
    return Result(task, score(task, wrong), lines)


def follows(
    part: str, found: Answers, own: Answers, told: list[Mistake], sources: set[str]
) -> bool:
    """Whether a part is wrong only because of functions (sources) that lost points for it already.

    Args:
        own: parts of the ELBO that the student's functions give for its inputs.
    """
    if own.get(part) and not own[part].keys() & {*differing(found[part], own[part])}:
        return bool(sources)
    if part.startswith(GRADIENT):
        return USES.get(part.removeprefix(GRADIENT)) in sources
    makers = {mistake.function for mistake in told if part in mistake.parts}
    return bool(sources) and makers <= sources and bool(makers or not own)


def score(task: Task, wrong: Iterable[str]) -> int:
    """The points of a task whose parts are wrong: each costs its own."""
    if task.name not in PARTS or "result" in wrong:
        return 0 if wrong else task.points
    lost = {{"z": "REC", "number of samples": "NIWAE"}.get(part, part) for part in wrong}
    if any(part.startswith(GRADIENT) for part in lost) or {"KL", "REC", "NELBO"} <= lost:
        lost.add("gradients")
    return sum(points for part, points in PARTS[task.name].items() if part not in lost)
