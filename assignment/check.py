"""Check a student's solution, and say what is wrong with it."""

import json
import signal
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from assignment import FURTHER, ROOT, TASKS, TASKS_OPTION, VISUALIZE, Task
from assignment.answers import SHOWN, Quantity
from assignment.describe import describe
from assignment.judging import (
    HAS_SOLUTION,
    SECONDS,
    Report,
    Result,
    grade,
    inputs_of,
    known,
    shown,
)  # fmt: skip
from assignment.probe import ARGUMENTS
from assignment.process import ask, project, stop
from assignment.submission import Submission, find
from codebase.arguments import Parser
from codebase.system.errors import UserError
from codebase.system.files import write_atomically
from codebase.system.streams import configure_output, flush_output


def show(submission: Submission, task: Task) -> str:
    """The inputs of a function, and its numbers of each dimension beside the right ones."""
    inputs = inputs_of(task.name)
    with project(submission) as folder:
        reply = ask(folder, task.name, task.file, inputs, SECONDS / 3)
    if reply.failure:
        return reply.failure
    found, (right, _) = describe(task.name, inputs, reply.record), known(task.name, {task.name})
    lines = []
    if task.name in ARGUMENTS:
        names = ARGUMENTS[task.name]
        columns: list[Sequence[float]] = [inputs[name].flatten().tolist() for name in names]
        both = (right, found)
        columns += [x[SHOWN]["each dimension"].values for x in both if x.get(SHOWN)]
        heads = ["image", *names, "right", "yours"]
        lines.append("  ".join(f"{head:>14}" for head in heads))
        for i, numbers in enumerate(zip(*columns, strict=True)):
            image = i // inputs[names[0]].shape[1] + 1
            lines.append("  ".join([f"{image:14}", *(f"{x:14.4f}" for x in numbers)]))
    for part in (right.keys() | found.keys()) - {SHOWN}:
        for key in {**right.get(part, {}), **found.get(part, {})}:
            ours, theirs = (shown(x.get(part, {}).get(key, Quantity())) for x in (right, found))
            lines.append(f"{key}: {theirs}, should be {ours}")
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """Any text as a few printable lines of at most 80 characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.indent(textwrap.fill(textwrap.shorten(printable, 1_000), 78), "  ")


def text_of(result: Result) -> str:
    """The points of a task and the sentences about it."""
    task = result.task
    head = f"Task {task.number or '+'}, {task.name}: {result.points} of {task.points} points"
    return "\n".join([head, *map(wrapped, result.lines)])


def text(report: Report) -> str:
    """A report for the student."""
    total = [sum(x.points for x in report.results), sum(x.task.points for x in report.results)]
    parts = ["\n".join(map(textwrap.fill, report.for_student))] * bool(report.for_student)
    parts += [*map(text_of, report.results), "Total: {} of {} points".format(*total)]
    return "\n\n".join(parts) + "\n"


def results_json(report: Report, tasks: Sequence[Task]) -> bytes:
    """Gradescope's results.json: tasks without a result have 0 points."""
    done = {result.task: result for result in report.results}
    tests = []
    for task in tasks:
        result = done.get(task, Result(task, 0, ["not checked"]))
        test = {"name": f"Task {task.number or '+'}, {task.name}", "max_score": task.points}
        test |= {"score": result.points, "output": "\n".join(map(wrapped, result.lines))}
        tests.append(test | {"status": "passed" if result.points == task.points else "failed"})
    results: dict[str, object] = {
        "output": "\n".join(report.for_student) or "Checked.",
        "tests": tests,
    }
    results["extra_data"] = {"for the teacher": report.for_teacher}
    return json.dumps(results, indent=1).encode()


def arguments(argv: list[str] | None) -> Namespace:
    """Read the command line. A DIR may follow the names of tasks or --run."""
    parser = Parser(prog="assignment.check", description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="a solution")
    parser.add_argument("--tasks", **TASKS_OPTION | {"choices": None})
    names = [task.name for task in TASKS]
    parser.add_argument("--only", choices=names, metavar="TASK", help="check this task alone")
    parser.add_argument("--run", nargs="?", const="", metavar="NAME", help="also check a run")
    parser.add_argument("--results", type=Path, metavar="FILE", help="Gradescope's results.json")
    parser.add_argument(
        "--show",
        choices=[x for x in names if x != "train"],
        metavar="TASK",
        help="print the inputs and numbers of a function",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit (default 60)")
    args = parser.parse_args(argv)
    if not args.dir and args.tasks and args.tasks[-1] not in FURTHER:
        args.dir = Path(args.tasks.pop())
    if not args.dir and args.run and Path(args.run).exists():
        args.dir, args.run = Path(args.run), ""
    if unknown := [name for name in args.tasks if name not in FURTHER]:
        parser.error(f"argument --tasks: {unknown[0]} is not one of {', '.join(FURTHER)}")
    args.dir = args.dir or ROOT
    if not args.dir.exists():
        parser.error(f"argument DIR: {args.dir} does not exist")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all checked tasks are solved or with --results, else 1."""
    args = arguments(argv)
    try:
        submission = find(args.dir, runs=args.run is not None)
    except UserError as error:
        if not args.results:  # Gradescope expects its file in any case.
            print(f"assignment.check: argument DIR: {error}", file=sys.stderr)
            return 2
        submission = Submission({}, {}, [str(error)], {})
    if args.show:
        print(show(submission, next(task for task in TASKS if task.name == args.show)))
        return 0
    asked = {task.name for task in TASKS if task.number and (task.file or args.run is not None)}
    asked = {args.only} if args.only else asked | {*args.tasks}
    if VISUALIZE not in submission.files and not (args.results or args.only):
        asked -= {"visualize_samples"}  # Some courses ask for two files only.
        submission.notes.append("visualize.py was not sent, so task 4 is not checked.")
    tasks = [task for task in TASKS if task.name in asked]
    results = list[Result]()

    def save(report: Report) -> None:
        """Write Gradescope's file, complete at any time."""
        if args.results:
            write_atomically(args.results, results_json(report, tasks))

    def on_result(result: Result) -> None:
        """Print a result and save it."""
        print(text_of(result) + "\n")
        results.append(result)
        save(Report(results, submission.notes, []))

    try:  # An error comes before the work that it would lose.
        save(Report([], submission.notes, []))
    except OSError as error:
        print(f"assignment.check: argument --results: {error.strerror}", file=sys.stderr)
        return 2
    print("\n".join(map(textwrap.fill, submission.notes)) + "\n")
    run = submission.runs.get(args.run) if args.run else submission.run
    report = grade(submission, tasks, run, on_result, args.seconds)
    print("\n".join(map(textwrap.fill, report.for_student[len(submission.notes) :])))
    if HAS_SOLUTION and report.for_teacher:
        print("For the teacher:", *report.for_teacher, sep="\n")
    print(text(report).splitlines()[-1])
    save(report)
    # For Gradescope, any other status means that the check itself failed.
    return 0 if args.results or all(x.points == x.task.points for x in results) else 1


if __name__ == "__main__":
    configure_output()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 1
    finally:
        stop()
    sys.exit(flush_output(status))
