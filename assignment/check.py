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

from assignment import FURTHER, ROOT, TASKS, UTILS, VAE, VISUALIZE, Task
from codebase.arguments import Parser
from codebase.system.files import write_atomically

NUMBERS = ROOT / "assignment" / "numbers.json"
SECONDS = 60  # that a student's process may take
OF_ALL = {"NELBO", "NIWAE", "gradient of m (2 x 2)", "gradient of v (2 x 2)"}  # what depends on all


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


def ask(task: Task, folder: Path, run: Path) -> tuple[Any, list[str]]:
    """What the files in a folder answer, or a sentence of what they do instead; and notes.

    They are asked in a process of its own, which ends with all that it has started.
    """
    here, notes = folder / task.name, []
    here.mkdir()
    paths = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    ours = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "assignment.student", task.name, task.file, run]
    with open(here / "printed", "w+", errors="replace") as printed:
        options: dict[str, Any] = {"stdin": DEVNULL, "stdout": printed, "stderr": STDOUT}
        options["env"] = os.environ | ours | {"MPLBACKEND": "agg"}
        process = Popen(command, cwd=here, start_new_session=True, **options)
        try:
            answer: Any = f"it ends the process, with status {process.wait(SECONDS)}"
        except TimeoutExpired:
            answer = f"it does not end within {SECONDS} seconds"
        finally:
            with suppress(AttributeError, ProcessLookupError):  # on Windows; where none is left
                os.killpg(process.pid, signal.SIGKILL)
                notes.append("all that it had started was ended")
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


def check(task: Task, folder: Path, run: Path, failed: set[str]) -> tuple[bool, list[str]]:
    """Whether a task is solved, and what there is to say."""
    seen, notes = ask(task, folder, run)
    if isinstance(seen, str):
        return False, [seen, *notes]
    known = json.loads(NUMBERS.read_text())[task.name]
    right, lines, explained = known["right"], [], set[str]()
    follows = task.file != UTILS and "sample_gaussian" in failed  # in whose task draws are judged
    left_out = {w for w in {*seen, *right} if follows and (w.endswith(" z") or "gradient" in w)}
    off = [words for words in differing(seen, right) if words not in left_out]
    holds = ", ".join(words for words in right if words not in {*off, *left_out})
    for sentence, changes in known["wrong"] if off else ():
        made = {words: each for words, each in (right | changes).items() if each}
        own, other = {*changes} - OF_ALL - left_out, {*differing(seen, made)} - left_out
        if not other:
            lines = [sentence]
            break
        if own & {*off} and not own & (other | explained) and {*right} <= {*seen}:  # a part
            explained |= own
            lines.append(sentence)
    else:
        lines += [f"No known mistake alone makes this. {known['example']}"] * bool(off)
    for words in off[:8]:
        out, should = _shown(seen.get(words)), _shown(right.get(words, [None])[0])
        lines.append(f"{words}: came out {out}, should be {should}")
    return not off, [*lines, f"what holds: {holds or 'nothing'}", *notes]


def _shown(values: list[float] | None) -> str:
    return "no" if values is None else " ".join(f"{value:.4f}" for value in values) or "yes"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 if all holds, 1 if something does not."""
    parser = Parser(prog="assignment.check", description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, default=ROOT, metavar="DIR", help="to check")
    parser.add_argument("--tasks", nargs="+", choices=FURTHER, default=[], help="to check too")
    parser.add_argument("--run", metavar="NAME", default="", help="a folder in DIR/checkpoints")
    parser.add_argument("--results", type=Path, metavar="FILE", help="for Gradescope")
    args = parser.parse_args(argv)
    for place in (args.dir, args.results.parent if args.results else args.dir):
        if not place.is_dir():
            parser.error(f"{place} is not a folder")
    tests, failed, unsent = [], set[str](), ""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shutil.copytree(ROOT / "codebase", Path(folder, "codebase"))
        for file in (UTILS, VAE, VISUALIZE):
            name = Path(file).name
            places = [args.dir / each for each in (file, file.removeprefix("codebase/"), name)]
            if found := [place for place in places if place.is_file()]:
                shutil.copy(found[0], Path(folder, file))
            elif file == VISUALIZE:  # whoever sends the two files is asked for them alone
                unsent = file
                print("visualize.py was not sent, so task 4 is not checked.\n")
            else:
                Path(folder, file).write_text(f"raise ImportError('{name} is not there')")
        for task in TASKS:
            asked = task.number or task.name in args.tasks
            if asked and (task.file or args.run) and task.file != unsent:
                run = args.dir.absolute() / "checkpoints" / args.run
                solved, lines = check(task, Path(folder), run, failed)
                failed |= set() if solved else {task.name}
                text = [textwrap.indent(textwrap.fill(each, 74), "  ") for each in lines]
                test = {"name": f"Task {task.number or '+'}, {task.name}", "max_score": task.points}
                test |= {"score": task.points if solved else 0, "output": "\n".join(text)}
                tests.append(test | {"status": "passed" if solved else "failed"})
                print("{name}: {score} of {max_score} points\n{output}\n".format(**test))
    if args.results:
        write_atomically(args.results, json.dumps({"tests": tests}, indent=1).encode())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
