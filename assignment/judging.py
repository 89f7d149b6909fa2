"""Grades a hand-in: compares the answers of its functions with the right ones."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from assignment import FILES, ROOT, VAE, VISUALIZE, Task, answers
from assignment.answers import GRADIENT, Answers, Mistake
from assignment.describe import describe
from assignment.inputs import ask
from assignment.probe import Record
from assignment.process import answer_of, project
from assignment.report import Result, compared, remarks
from assignment.student import AT_IMPORT, MODEL, measure_run
from assignment.submission import Submission
from codebase.system.errors import UserError

HAS_SOLUTION = (ROOT / "assignment" / "mistakes.md").exists()  # not in a hand-out
# Inputs are new in each process if our solution is here to answer them. A hand-out knows the
# answers of seed 0 alone.
SEED = secrets.randbits(31) if HAS_SOLUTION else 0
SECONDS = 60.0  # The time limit of a check. A function may take a third of it, a picture all of it.
# Points for the parts of a task; those of all other tasks are given as a whole.
PARTS = {
    "negative_elbo_bound": {"KL": 2, "REC": 2, "NELBO": 1, "gradients": 1},
    "negative_iwae_bound": {"NIWAE": 3, "KL": 1, "REC": 1},
}


def grade(
    submission: Submission,
    tasks: Sequence[Task],
    run: bytes | None = None,
    seconds: float = SECONDS,
) -> Iterator[Result]:
    """Check tasks of a hand-in, those of a file before those of files that import it.

    The task "train" needs the file of a run's model. The whole check has a limit of some seconds.
    """
    end, hanging = time.monotonic() + seconds, ""
    passed, failed = set[str](), dict[str, Answers]()
    with project(submission, any(task.file == VISUALIZE for task in tasks)) as folder:
        (folder / MODEL).write_bytes(run or b"")
        for task in sorted(tasks, key=lambda task: FILES.index(task.file or VAE)):
            file = task.file or VAE
            most = seconds if file == VISUALIZE else seconds / 3
            again = partial(answer_until, end, folder, task, most)
            record: Record = {}
            if task.name == "train" and run is None:
                record["failure"] = f"there is no {MODEL} of a run with the assignment's settings"
            elif task.name == "train" and HAS_SOLUTION:
                record = measure(folder / MODEL)
            elif file not in submission.files:
                record["failure"] = f"{Path(file).name} was not sent"
            elif hanging:
                record["failure"] = f"as above: {hanging}"
            elif end - time.monotonic() < 1:
                record["failure"] = f"the check reached its limit of {seconds:.0f} seconds before"
            else:
                record = again(SEED)
                failure = str(record.get("failure", ""))
                hanging = failure if failure.endswith(AT_IMPORT) else ""
            found = described(task, SEED, record)
            result = judge(task, record, found, again, passed, failed)
            if result.points == task.points:
                passed.add(task.name)
            else:
                failed[task.name] = found
            yield result


def answer_until(end: float, folder: Path, task: Task, most: float, seed: int) -> Record:
    """The answer of a student's function, which may take most seconds, but not beyond the end."""
    return answer_of(folder, task, max(1.0, min(end - time.monotonic(), most)), seed)


def measure(path: Path) -> Record:
    """The bounds of a trained model by our solution."""
    try:
        return measure_run(path, ask("train", 0)["images"])
    except UserError as error:
        return {"failure": str(error).replace(f"{path.parent}{os.sep}", "")}


def described(task: Task, seed: int, record: Record) -> Answers:
    """The answer in a record to the inputs of a seed, empty if there is none of the right form."""
    try:
        return describe(task.name, ask(task.name, seed), record)
    except Exception:  # A student's process may send anything.
        return {}


def judge(
    task: Task,
    record: Record,
    found: Answers,
    again: Callable[[int], Record],
    passed: set[str],
    failed: dict[str, Answers],
) -> Result:
    """Compare the answer of a student's function with the right one.

    `again` asks it for a record with the inputs of a seed. Earlier tasks have passed if they got
    all points; the others have failed, with these answers.
    """
    if "failure" in record:
        return Result(task, 0, [str(record["failure"])])
    if not found:
        return Result(task, 0, ["its process sent an answer of a wrong form"])
    right = answers.right_answers(task.name, SEED)
    wrong = answers.wrong_parts(found, right)
    if not wrong:
        notes = [str(record["note"])] if record.get("note") else []
        return Result(task, task.points, ["everything is right", *notes, *remarks(task, found)])
    called = {*str(record.get("called", "")).split(), task.name}
    called |= {"sample_gaussian", "sample_x"} if task.file == VISUALIZE else set()
    called -= passed
    sources = {name: failed[name] for name in failed if name in called}
    same = record if SEED == 0 or not task.file else again(0)
    answer, ours = described(task, 0, same), answers.right_answers(task.name, 0)
    known = answers.known_mistakes(task.name)
    possible = [mistake for mistake in known if mistake.is_possible(called, sources.keys())]
    told = answers.explain(task.name, answer, ours, possible)
    makers = {part: makers_of(part, found, told, sources) for part in wrong}
    excused = {part: " and ".join(sorted(names)) for part, names in makers.items() if names}
    wrong = {part: keys for part, keys in wrong.items() if part not in excused}
    lines = [mistake.sentence for mistake in told if mistake.parts.keys() - excused.keys()]
    for part, names in sorted(excused.items()):
        lines.append(f"{part} is wrong only because of {names}, and costs nothing here")
    if rest := sorted(wrong.keys() - {part for mistake in told for part in mistake.parts}):
        lines.append(f"no known mistake explains the {' and the '.join(rest)}")
        if "NIWAE" in rest and (others := sorted(sources.keys() - {"kl_normal"})):
            lines.append(f"it calls {' and '.join(others)}: correct that first")
    lines += compared(task, found, right, wrong)
    return Result(task, score(task, wrong), lines)


def makers_of(
    part: str, found: Answers, told: list[Mistake], sources: dict[str, Answers]
) -> set[str]:
    """Functions that alone make a part wrong, and that lost points for it already.

    `sources` are the wrong functions that the task's function calls, with their own answers.
    """
    for name, own in sources.items():
        if part.startswith(GRADIENT) and own.keys() & {*part.split()}:
            lost = answers.wrong_parts(own, answers.right_answers(name, SEED))
            is_same = any(each.startswith(GRADIENT) for each in lost)
        else:
            is_same = part in own and not answers.differing(own[part], found.get(part, {}))
        if is_same:
            return {name}
    makers = {mistake.function for mistake in told if part in mistake.parts}
    return makers if makers <= sources.keys() else set()


def score(task: Task, wrong: Iterable[str]) -> int:
    """The points of a task whose parts are wrong: each costs its own."""
    if task.name not in PARTS or "result" in wrong:
        return 0 if wrong else task.points
    lost = {{"z": "REC", "number of samples": "NIWAE"}.get(part, part) for part in wrong}
    if any(part.startswith(GRADIENT) for part in lost) or {"KL", "REC", "NELBO"} <= lost:
        lost.add("gradients")
    return sum(points for part, points in PARTS[task.name].items() if part not in lost)
