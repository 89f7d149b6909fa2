"""Check a student's solution, and say what is wrong with it."""

import signal
import sys
import textwrap
from argparse import Namespace
from pathlib import Path

from assignment import FURTHER, ROOT, TASKS, TASKS_OPTION, VISUALIZE, Task
from assignment.answers import right_answers
from assignment.inputs import ask
from assignment.judging import HAS_SOLUTION, SECONDS, SEED, described, grade
from assignment.process import answer_of, project
from assignment.report import Result, comparison, results_json, text_of, total
from assignment.sources import suspicious
from assignment.student import MODEL
from assignment.submission import Submission, find
from codebase.arguments import Parser, number
from codebase.system.errors import UserError, explain
from codebase.system.files import write_atomically
from codebase.system.streams import configure_output, flush_output


def show(submission: Submission, task: Task, seconds: float) -> str:
    """The numbers of a function beside the right ones."""
    with project(submission) as folder:
        record = answer_of(folder, task, seconds, SEED)
    if "failure" in record:
        return textwrap.fill(str(record["failure"]), 78)
    found = described(task, SEED, record)
    return comparison(task, ask(task.name, SEED), found, right_answers(task.name, SEED))


def arguments(argv: list[str] | None) -> tuple[Parser, Namespace]:
    """The command line and its parser. A DIR may follow the names of tasks or --run."""
    parser = Parser(prog="assignment.check", description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="a solution")
    parser.add_argument("--tasks", **TASKS_OPTION | {"choices": None})
    names = [task.name for task in TASKS]
    parser.add_argument("--only", choices=names, metavar="TASK", help="check this task alone")
    parser.add_argument("--run", nargs="?", const="", metavar="NAME", help="also check a run")
    parser.add_argument("--results", type=Path, metavar="FILE", help="Gradescope's results.json")
    functions = [name for name in names if name != "train"]
    show = "print the numbers of a function beside the right ones"
    parser.add_argument("--show", choices=functions, metavar="TASK", help=show)
    limit = "time limit of the check (default 60)"
    parser.add_argument("--seconds", type=number(float, 1, 86_400), default=SECONDS, help=limit)
    args = parser.parse_args(argv)
    if not args.dir and args.tasks and Path(args.tasks[-1]).exists():
        args.dir = Path(args.tasks.pop())
    if not args.dir and args.run and Path(args.run).exists():
        args.dir, args.run = Path(args.run), ""
    if unknown := [name for name in args.tasks if name not in FURTHER]:
        parser.error(f"argument --tasks: {unknown[0]} is not one of {', '.join(FURTHER)}")
    args.dir = (args.dir or ROOT).resolve()
    if not args.dir.exists():
        parser.error(f"argument DIR: {args.dir} does not exist")
    return parser, args


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all checked tasks are solved or with --results, else 1."""
    parser, args = arguments(argv)
    try:
        name = "" if args.dir.is_dir() else args.dir.name
        submission = find([(name, args.dir)], runs=args.run is not None or args.only == "train")
    except (UserError, OSError) as error:
        if not args.results:  # Gradescope expects its file in any case.
            parser.error(f"argument DIR: {explain(error)}")
        submission = Submission({}, [str(explain(error))], {})
    if args.show:
        task = next(task for task in TASKS if task.name == args.show)
        print(show(submission, task, args.seconds))
        return 0
    asked = {task.name for task in TASKS if task.number and (task.file or args.run is not None)}
    asked = {args.only} if args.only else asked | {*args.tasks}
    if VISUALIZE not in submission.files and not (args.results or args.only):
        asked -= {"visualize_samples"}  # Some courses ask for two files only.
        submission.notes.append("visualize.py was not sent, so task 4 is not checked.")
    tasks = [task for task in TASKS if task.name in asked]
    results = {task: Result(task, 0, ["not checked"]) for task in tasks}
    for_teacher = suspicious(submission.files)

    def save() -> None:
        """Write Gradescope's file, which is complete at any time."""
        if args.results:
            content = results_json(results.values(), submission.notes, for_teacher)
            write_atomically(args.results, content)

    try:  # An error comes before the work that it would lose.
        save()
    except OSError as error:
        parser.error(f"argument --results: {error.strerror}")
    print("\n".join(map(textwrap.fill, submission.notes)) + "\n")
    if args.run and args.run not in submission.runs:
        print(f"There is no run {args.run} with a {MODEL}.\n")
    run = submission.runs.get(args.run) if args.run else submission.run
    for result in grade(submission, tasks, run, args.seconds):
        print(text_of(result) + "\n")
        results[result.task] = result
        save()
    print("\n".join([*for_teacher] * HAS_SOLUTION + [total(results.values())]))
    # For Gradescope, any other status means that the check itself failed.
    is_solved = all(result.points == task.points for task, result in results.items())
    return 0 if args.results or is_solved else 1


if __name__ == "__main__":
    configure_output()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 1
    except ChildProcessError as error:
        print(f"assignment.check: {error}", file=sys.stderr)
        status = 1
    sys.exit(flush_output(status))
