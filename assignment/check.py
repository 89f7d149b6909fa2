"""Check a student's solution, and say what is wrong with it."""

import json
import os
import shutil
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from assignment import ROOT, TASKS, TASKS_OPTION, UTILS, VAE, VISUALIZE, Task
from assignment.answers import Answers
from codebase.arguments import Parser
from codebase.system.files import write_atomically
from codebase.system.streams import configure_output, flush_output

NUMBERS = ROOT / "assignment" / "numbers.json"
SECONDS = 60  # The time limit of a student's process; a picture may take three times as long.
Files = dict[str, Path | None]  # For each file of the tasks, the student's version if it was sent.
Ranges = dict[str, list[list[float]]]  # For each key, the expected numbers and their tolerances.


def mismatched_keys(answers: Answers, expected: Ranges) -> list[str]:
    """Keys whose answers are off by more than the tolerance, and keys that only one side has."""

    def matches(key: str) -> bool:
        triples = zip(answers[key], *expected[key], strict=False)
        near = [a == b or abs(a - b) <= c or (a != a and b != b) for a, b, c in triples]
        return all(near) and len(answers[key]) == len(expected[key][0])

    both = answers.keys() & expected.keys()
    return [k for k in dict.fromkeys([*expected, *answers]) if k not in both or not matches(k)]


def run_student(task: Task, files: Files, run: Path) -> tuple[Answers | str, list[str]]:
    """Run a student's files in a process; give its answers, or a sentence instead, and notes."""
    notes = []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for package in ("assignment", "codebase"):  # A copy without the right answers.
            ignore = shutil.ignore_patterns("*.json", "*.md", "__pycache__")
            shutil.copytree(ROOT / package, Path(folder, package), ignore=ignore)
        for file, path in files.items():
            missing = f"raise ImportError('{Path(file).name} is missing')"
            Path(folder, file).write_bytes(path.read_bytes() if path else missing.encode())
        (work := Path(folder, "work")).mkdir()
        command = [sys.executable, "-m", "assignment.student", task.name, task.file, run]
        variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
        variables["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        with open(work / "printed", "w+", errors="replace") as printed:
            options: dict[str, Any] = {"stdin": DEVNULL, "stdout": printed, "stderr": STDOUT}
            options |= {"cwd": work, "env": os.environ | variables}
            seconds = SECONDS * (3 if task.file == VISUALIZE else 1)
            process = Popen(command, start_new_session=True, **options)
            try:
                status = process.wait(seconds)
                cause = f"with status {status}" if status >= 0 else f"by signal {-status}"
                answers: Answers | str = f"its process ended {cause}"
            except TimeoutExpired:
                answers = f"it did not end within {seconds} seconds"
            finally:
                # Windows has no process groups, and most groups have no process left.
                with suppress(AttributeError, ProcessLookupError):
                    has_ended = process.poll() is not None
                    os.killpg(process.pid, signal.SIGKILL)
                    notes += ["processes that it left running were killed"] * has_ended
                process.kill()
                process.wait()
            # The student's code may have deleted or damaged the file.
            with suppress(OSError, AttributeError, TypeError, ValueError):
                read = json.loads((work / "answer").read_text())
                is_sentence = isinstance(read, str)
                answers = read if is_sentence else {k: [*map(float, x)] for k, x in read.items()}
            if size := printed.seek(0, os.SEEK_END):
                printed.seek(0)
                notes.append(f"it printed {size} bytes, beginning: {printed.read(150).strip()}")
            return answers, notes


def check(task: Task, files: Files, run: Path, failed: set[str]) -> tuple[bool, list[str]]:
    """Check one task, given the tasks that have failed; give the verdict and sentences about it."""
    answers, notes = run_student(task, files, run)
    # A mistake in sample_gaussian costs points once: tasks that call it are excused for its noise.
    excused = task.file != UTILS and "sample_gaussian" in failed
    if isinstance(answers, str):
        return False, [answers, *["solve task 1 first, which this needs"] * excused, *notes]
    known = json.loads(NUMBERS.read_text())[task.name]
    right = known["right"]
    ignored = {k for k in {*answers, *right} if excused and (k.endswith(" z") or "gradient" in k)}
    mismatched = [key for key in mismatched_keys(answers, right) if key not in ignored]
    if not mismatched:
        return True, ["everything is correct", *notes]
    lines, is_complete = explanation(answers, known, mismatched, ignored)
    for key in mismatched[: 2 if is_complete else 8]:
        found, expected = _shown(answers.get(key)), _shown(*right.get(key, [None]))
        lines.append(f"{key}: came out {found}, should be {expected}")
    plain = [key for key in right if "share of different" not in key and "same" not in key]
    correct = [key for key in plain if key not in {*mismatched, *ignored}]
    return False, [*lines, f"correct: {', '.join(correct) or 'nothing'}", *notes]


def explanation(
    answers: Answers, known: dict[str, Any], mismatched: list[str], ignored: set[str]
) -> tuple[list[str], bool]:
    """The sentences of the mistakes behind the answers, and whether one explains them all."""
    right = known["right"]
    sentences, explained = [], set[str]()
    for sentence, changes in known["wrong"]:
        expected = {key: ranges for key, ranges in (right | changes).items() if ranges}
        unexplained = {*mismatched_keys(answers, expected)} - ignored
        if not unexplained:
            return [sentence], True
        # Bounds and gradients depend on all mistakes. If everything else that this one changes came
        # out as it predicts, and no earlier one explains it, it is one of several mistakes.
        own = {k for k in {*changes} - {"NELBO", "NIWAE"} - ignored if "gradient" not in k}
        if own & {*mismatched} and not own & (unexplained | explained) and {*right} <= {*answers}:
            explained |= own
            sentences.append(sentence)
    rest = "something else is wrong too" if sentences else "No known mistake alone explains this"
    return [*sentences, f"{rest}. {known['example']}"], False


def _shown(values: list[float] | None, errors: list[float] | None = None) -> str:
    """Numbers, with tolerances where these matter; "yes" if there are none, "no" for None."""
    if values is None:
        return "no"
    pairs = zip(values, errors or [0] * len(values), strict=True)
    shown = (f"{x:.4g}±{e:.1g}" if e > 1e-3 * abs(x) else f"{x:.4f}" for x, e in pairs)
    return " ".join(shown) or "yes"


def _wrapped(text: str) -> str:
    """Any text as a few printable lines of at most 80 characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.indent(textwrap.fill(textwrap.shorten(printable, 1_000), 74), "  ")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all checked tasks are solved, else 1."""
    parser = Parser(prog="assignment.check", description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, default=ROOT, metavar="DIR", help="a solution")
    parser.add_argument("--tasks", **TASKS_OPTION)
    parser.add_argument("--run", metavar="NAME", default="", help="trained run in DIR/checkpoints")
    parser.add_argument("--results", type=Path, metavar="FILE", help="Gradescope's results.json")
    args = parser.parse_args(argv)
    if not args.dir.is_dir():
        parser.error(f"argument DIR: {args.dir} is not a folder")
    if args.results:
        try:  # An error comes before the work that it would lose.
            write_atomically(args.results, b"")
        except OSError as error:
            parser.error(f"argument --results: {args.results}: {error.strerror}")
    files = Files()
    for file in (UTILS, VAE, VISUALIZE):
        places = (args.dir / file, args.dir / file[len("codebase/") :], args.dir / Path(file).name)
        files[file] = next((place for place in places if place.is_file()), None)
    if not any(files.values()) and not args.results:  # Gradescope expects its file in any case.
        parser.error(f"argument DIR: {args.dir} has no utils.py and no codebase/utils.py")
    run = args.dir.absolute() / "checkpoints" / Path(args.run).name
    tests, failed = [], set[str]()
    for task in TASKS:
        if not (task.number or task.name in args.tasks) or not (task.file or args.run):
            continue
        if task.file == VISUALIZE and not files[VISUALIZE]:  # Some courses ask for two files only.
            print("visualize.py was not sent, so task 4 is not checked.\n")
            continue
        solved, lines = check(task, files, run, failed)
        failed |= set() if solved else {task.name}
        test = {"name": f"Task {task.number or '+'}, {task.name}", "max_score": task.points}
        test |= {"score": task.points if solved else 0, "output": "\n".join(map(_wrapped, lines))}
        tests.append(test | {"status": "passed" if solved else "failed"})
        print("{name}: {score} of {max_score} points\n{output}\n".format(**test))
    points = (sum(test[key] for test in tests) for key in ("score", "max_score"))
    print("Total: {} of {} points".format(*points))
    if args.results:
        write_atomically(args.results, json.dumps({"tests": tests}, indent=1).encode())
    return 1 if failed else 0


if __name__ == "__main__":
    configure_output()
    try:
        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 1
    sys.exit(flush_output(status))
