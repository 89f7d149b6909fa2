"""The report on a hand-in: sentences and tables for the student, and Gradescope's file."""

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from assignment import Task
from assignment.answers import GRADIENT, SHOWN, SIGMAS, Answers, Quantity
from assignment.describe import LATENTS
from assignment.inputs import Inputs
from assignment.probe import ARGUMENTS, RESULTS


class Result(NamedTuple):
    """The points of a task, and sentences for the student."""

    task: Task
    points: int
    lines: list[str]


def compared(
    task: Task, found: Answers, right: Answers, wrong: dict[str, list[str]]
) -> Iterator[str]:
    """The numbers that differ, after a table of the results of a bound with the cause first."""
    names = [name for name in RESULTS.get(task.name, ()) if name in found.get(SHOWN, {})]
    for name in sorted(names, key=lambda name: name not in wrong):
        value, ours = found[SHOWN][name], right[SHOWN][name]
        text = "right" if value.distance(ours) <= 1 else f"should be {shown(ours)}"
        if name in wrong and text != "right":
            text += "   <- look here"
        elif text != "right" and name == names[0]:
            text += ", because of the others"
        yield f"{name}: {shown(value)}, {text}"
    for part, keys in wrong.items():
        sent, expected = found.get(part, {}), right.get(part, {})
        yield from [key for key in keys if key in sent and not sent[key].values][:2]
        for key in [x for x in keys if x in sent and x in expected and x not in names][:3]:
            yield beside(part, key, found, right)


def beside(part: str, key: str, found: Answers, right: Answers) -> str:
    """A quantity beside the right one; the name of a gradient begins with its part."""
    sent, expected = (answers.get(part, {}).get(key) for answers in (found, right))
    name = f"{part} {key}" if part.startswith(GRADIENT) else key
    if not sent or not expected:
        return f"{name}: {(shown(sent) or 'wrong') if sent else 'missing'}"
    if not expected.values:
        return f"{name}: right"
    return f"{name}: {shown(sent)}, should be {shown(expected)}"


def shown(quantity: Quantity) -> str:
    """Numbers as text, with tolerances where these matter."""
    if len(quantity.values) > 9:
        return f"{min(quantity.values):.4g} to {max(quantity.values):.4g}"
    texts = []
    for x, error in zip(*quantity, strict=True):
        slack = SIGMAS * error
        places = min(4, max(1, -math.floor(math.log10(slack)))) if 0 < slack < math.inf else 4
        # Adding 0.0 removes the sign of -0.0.
        text = f"{x:.4g}" if abs(x) >= 1e6 else f"{round(x, places) + 0.0:.{places}f}"
        texts.append(f"{text}±{slack:.{places}f}" if slack > 1e-3 * abs(x) else text)
    return ", ".join(texts)


def remarks(task: Task, found: Answers) -> Iterator[str]:
    """Describe differences from the text that cost no points."""
    if task.name == "negative_elbo_bound" and found[SHOWN][LATENTS].values[0] > 1.5:
        yield "several latents are decoded for each image: the text asks for one"
    if task.name == "negative_iwae_bound" and found[SHOWN]["KL"].errors[0] > 1e-4:
        yield "KL is computed from samples: the closed form varies less"


def wrapped(text: str) -> str:
    """Any text as a few printable lines of at most 80 characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.indent(textwrap.fill(textwrap.shorten(printable, 1_000), 78), "  ")


def title(task: Task) -> str:
    """The heading of a task."""
    return f"Task {task.number}, {task.name}" if task.number else f"Further task, {task.name}"


def text_of(result: Result) -> str:
    """The points of a task and the sentences about it."""
    head = f"{title(result.task)}: {result.points} of {result.task.points} points"
    return "\n".join([head, *map(wrapped, result.lines)])


def text(notes: Sequence[str], results: Iterable[Result]) -> str:
    """A report for the student."""
    parts = ["\n".join(map(textwrap.fill, notes)), *map(text_of, results), total(results)]
    return "\n\n".join(parts) + "\n"


def total(results: Iterable[Result]) -> str:
    """The sum of the points."""
    pairs = [(result.points, result.task.points) for result in results]
    return "Total: {} of {} points".format(*map(sum, zip(*pairs, strict=True)))


def results_json(
    results: Iterable[Result], notes: Sequence[str], for_teacher: Sequence[str]
) -> bytes:
    """Gradescope's results.json."""
    tests = [
        {
            "name": title(result.task),
            "score": result.points,
            "max_score": result.task.points,
            "status": "passed" if result.points == result.task.points else "failed",
            "output": "\n".join(map(wrapped, result.lines)),
        }
        for result in results
    ]
    content = {"output": "\n".join(notes), "tests": tests, "extra_data": {"teacher": for_teacher}}
    return json.dumps(content, indent=1).encode()


def comparison(task: Task, inputs: Inputs, found: Answers, right: Answers) -> str:
    """A function's numbers beside the right ones; for a formula also its inputs."""
    lines, names = list[str](), ARGUMENTS.get(task.name, ())
    each = [x.get(SHOWN, {}).get("each dimension", Quantity()).values for x in (right, found)]
    if names and len(each[0]) == len(each[1]):
        columns = [*(inputs[name].flatten().tolist() for name in names), *each]
        width = 1 + max(10, *map(len, names))
        lines.append("image" + "".join(f"{name:>{width}}" for name in (*names, "right", "yours")))
        for i, numbers in enumerate(zip(*columns, strict=True)):
            image = 3 * i // len(each[0]) + 1
            lines.append(f"{image:5}" + "".join(f"{x:{width}.5g}" for x in numbers))
    for part in [x for x in dict.fromkeys([*right, *found]) if x != SHOWN]:
        for key in dict.fromkeys([*right.get(part, {}), *found.get(part, {})]):
            line = beside(part, key, found, right)
            lines.append(textwrap.fill(line, 78, subsequent_indent="  "))
    return "\n".join(lines)
