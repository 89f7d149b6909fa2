"""Check what a student has written, and say what is wrong with it."""

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

from assignment import CHOICE, ROOT, TASKS, UTILS, VAE, VISUALIZE, Task
from codebase.arguments import Parser
from codebase.system.files import write_atomically
from codebase.system.streams import lenient_streams

NUMBERS = ROOT / "assignment" / "numbers.json"
SECONDS = 60  # that a student's process may take


def differing(answers: dict[str, list[float]], expected: dict[str, list[list[float]]]) -> list[str]:
    """What answers differ in from those that are expected, by more than the errors of these."""

    def same(words: str) -> bool:
        if words not in answers or words not in expected:
            return False
        values, (around, within) = answers[words], expected[words]
        parts = zip(values, around, within, strict=False)
        near = [a == b or abs(a - b) <= c or (a != a and b != b) for a, b, c in parts]
        return all(near) and len(values) == len(around)

    return [words for words in dict.fromkeys([*expected, *answers]) if not same(words)]


def ask(task: Task, sent: dict[str, Path | None], run: Path) -> tuple[Any, list[str]]:
    """What the files that were sent answer, or a sentence of what they do instead; and notes.

    They are asked in a process of its own, which has a copy of everything but of the answers, and
    ends with all that it has started.
    """
    seconds, notes = SECONDS * (3 if task.file == VISUALIZE else 1), []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name in ("assignment", "codebase"):
            without = shutil.ignore_patterns("*.json", "*.md", "__pycache__")
            shutil.copytree(ROOT / name, Path(folder, name), ignore=without)
        for file, place in sent.items():
            lacking = f"raise ImportError('{Path(file).name} is not there')"
            Path(folder, file).write_bytes(place.read_bytes() if place else lacking.encode())
        (here := Path(folder, "here")).mkdir()
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        ours = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "assignment.student", task.name, task.file, run]
        with open(here / "printed", "w+", errors="replace") as printed:
            options: dict[str, Any] = {"stdin": DEVNULL, "stdout": printed, "stderr": STDOUT}
            options["env"] = os.environ | ours | {"MPLBACKEND": "agg"}
            process = Popen(command, cwd=here, start_new_session=True, **options)
            try:
                status = process.wait(seconds)
                reason = f"with status {status}" if status >= 0 else f"by signal {-status}"
                answer: Any = f"it ends the process, {reason}"
            except TimeoutExpired:
                answer = f"it does not end within {seconds} seconds"
            finally:
                with suppress(AttributeError, ProcessLookupError):  # on Windows; where none is left
                    ended = process.poll() is not None
                    os.killpg(process.pid, signal.SIGKILL)
                    notes += ["what it had started was ended"] * ended
                process.kill()
                process.wait()
            with suppress(OSError, TypeError, ValueError):  # where there is no answer
                said = json.loads((here / "answer").read_text())
                numbers = {} if isinstance(said, str) else dict(said)
                answer = {words: [*map(float, each)] for words, each in numbers.items()} or said
            if size := printed.seek(0, os.SEEK_END):
                printed.seek(0)
                notes.append(f"it prints {size} bytes, which begin: {printed.read(150).strip()}")
            return answer, notes


def check(
    task: Task, sent: dict[str, Path | None], run: Path, failed: set[str]
) -> tuple[bool, list[str]]:
    """Whether a task is solved, and what there is to say."""
    seen, notes = ask(task, sent, run)
    # How noise is drawn is judged in the task of sample_gaussian.
    follows = task.file != UTILS and "sample_gaussian" in failed
    if isinstance(seen, str):
        return False, [seen, *["see task 1 first, which this needs"] * follows, *notes]
    known = json.loads(NUMBERS.read_text())[task.name]
    right = known["right"]
    left_out = {w for w in {*seen, *right} if follows and (w.endswith(" z") or "gradient" in w)}
    off = [words for words in differing(seen, right) if words not in left_out]
    if not off:
        return True, ["all holds", *notes]
    lines, is_named = explanation(seen, known, off, left_out)
    for words in off[: 2 if is_named else 8]:
        out, should = _shown(seen.get(words)), _shown(*right.get(words, [None]))
        lines.append(f"{words}: came out {out}, should be {should}")
    plain = [words for words in right if "share of different" not in words and "same" not in words]
    holds = ", ".join(words for words in plain if words not in {*off, *left_out})
    return False, [*lines, f"what holds: {holds or 'nothing'}", *notes]


def explanation(
    seen: dict[str, list[float]], known: dict[str, Any], off: list[str], left_out: set[str]
) -> tuple[list[str], bool]:
    """The sentences of what makes answers be off, and whether one mistake makes all of it."""
    right, parts, explained = known["right"], [], set[str]()
    for sentence, changes in known["wrong"]:
        made = {words: each for words, each in (right | changes).items() if each}
        other = {*differing(seen, made)} - left_out
        if not other:
            return [sentence], True
        # Bounds and gradients depend on all that is wrong. All else that this mistake changes came
        # out like that, and no earlier sentence has said so: it is a part of what is wrong.
        whole = {words for words in changes if words in ("NELBO", "NIWAE") or "gradient" in words}
        own = {*changes} - whole - left_out
        if own & {*off} and not own & (other | explained) and {*right} <= {*seen}:
            explained |= own
            parts.append(sentence)
    start = "and something else is wrong" if parts else "No known mistake alone makes this"
    return [*parts, f"{start}. {known['example']}"], False


def _shown(values: list[float] | None, errors: list[float] | None = None) -> str:
    """Numbers, with their errors if these matter; yes for what is there without any, or no."""
    if values is None:
        return "no"
    pairs = zip(values, errors or [0] * len(values), strict=True)
    return (
        " ".join(f"{x:.4g}±{e:.1g}" if e > 1e-3 * abs(x) else f"{x:.4f}" for x, e in pairs) or "yes"
    )


def _plain(text: str) -> str:
    """A text of anybody's in lines of 80 characters, at most a few, and nothing but characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.indent(textwrap.fill(textwrap.shorten(printable, 1_000), 74), "  ")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all holds, 1 if something does not."""
    parser = Parser(prog="assignment.check", description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, default=ROOT, metavar="DIR", help="to check")
    parser.add_argument("--tasks", **CHOICE)
    parser.add_argument("--run", metavar="NAME", default="", help="a folder in DIR/checkpoints")
    parser.add_argument("--results", type=Path, metavar="FILE", help="for Gradescope")
    args = parser.parse_args(argv)
    if not args.dir.is_dir():
        parser.error(f"argument DIR: {args.dir} is not a folder")
    if args.results:
        try:  # before there is something to lose
            write_atomically(args.results, b"")
        except OSError as error:
            parser.error(f"argument --results: {args.results}: {error.strerror}")
    tests, failed, sent = [], set[str](), dict[str, Path | None]()
    for file in (UTILS, VAE, VISUALIZE):
        names = (file, file.removeprefix("codebase/"), Path(file).name)
        sent[file] = next((p for p in (args.dir / name for name in names) if p.is_file()), None)
    if not any(sent.values()) and not args.results:  # which Gradescope expects in any case
        parser.error(f"argument DIR: {args.dir} has no utils.py and no codebase/utils.py")
    for task in TASKS:
        if not (task.number or task.name in args.tasks) or not (task.file or args.run):
            continue
        if task.file == VISUALIZE and not sent[VISUALIZE]:  # of whoever is asked for two files
            print("visualize.py was not sent, so task 4 is not checked.\n")
            continue
        run = args.dir.absolute() / "checkpoints" / Path(args.run).name
        solved, lines = check(task, sent, run, failed)
        failed |= set() if solved else {task.name}
        test = {"name": f"Task {task.number or '+'}, {task.name}", "max_score": task.points}
        test |= {"score": task.points if solved else 0, "output": "\n".join(map(_plain, lines))}
        tests.append(test | {"status": "passed" if solved else "failed"})
        print("{name}: {score} of {max_score} points\n{output}\n".format(**test))
    points = (sum(test[key] for test in tests) for key in ("score", "max_score"))
    print("In all: {} of {} points".format(*points))
    if args.results:
        write_atomically(args.results, json.dumps({"tests": tests}, indent=1).encode())
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        with lenient_streams():
            status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)
