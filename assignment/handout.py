"""Write the hand-out: the program without the bodies of the tasks' functions, and the checks."""

import ast
import re
import shutil
import sys
from pathlib import Path

from assignment import CHOICE, ROOT, TASKS, Task
from codebase.arguments import Parser
from codebase.system.errors import explain

# What tells the solution stays here, as tests/ and benchmarks/ do.
LEFT_OUT = ("__pycache__", "explorer.*", "handout.py", "mistakes.md", "README.md")


def without_body(text: str, task: Task) -> str:
    """The text of a file in which the task's function has its signature and docstring only."""
    functions = (each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.FunctionDef))
    function = next(each for each in functions if each.name == task.name)
    first, lines = function.body[0], text.splitlines(True)
    start = first.end_lineno if ast.get_docstring(function) else first.lineno - 1
    number = f"task {task.number}" if task.number else "a further task"
    raising = f'raise NotImplementedError("{number}: {task.sentence}")\n'
    lines[start : function.end_lineno] = [" " * first.col_offset + raising]
    return "".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or exit with status 2 and a sentence."""
    parser = Parser("assignment.handout", description=__doc__)
    parser.add_argument("dir", type=Path, metavar="DIR", help="a new folder, or an empty one")
    parser.add_argument("--tasks", **CHOICE)
    args = parser.parse_args(argv)
    if args.dir.exists() and (not args.dir.is_dir() or any(args.dir.iterdir())):
        parser.error(f"argument DIR: {args.dir} is not an empty folder; choose another one")
    try:
        write(args.dir, args.tasks)
    except OSError as error:
        parser.error(f"argument DIR: {explain(error)}")
    print(f"The hand-out is in {args.dir}; hand out all of it")
    return 0


def write(folder: Path, tasks: list[str]) -> None:
    """Write the hand-out into a folder, with the bodies of these further tasks taken out too."""
    for name in ("codebase", "assignment"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / "docs").mkdir()
    for name in ("run_vae.py", "requirements.txt", "LICENSE", "docs/samples.png"):
        shutil.copy(ROOT / name, folder / name)
    text = (ROOT / "assignment" / "README.md").read_text(encoding="utf-8").replace("](../", "](")
    for task in TASKS:
        asked, path = task.number or task.name in tasks, folder / task.file
        # The lines of negative_iwae_bound tell those of task 2, so it is taken out in any case.
        if task.file and (asked or task.name == "negative_iwae_bound"):
            path.write_text(without_body(path.read_text(encoding="utf-8"), task), encoding="utf-8")
        text = text if asked else re.sub(rf"\| \+ \| `{task.name}`.*\n", "", text)
    more = f" --tasks {' '.join(tasks)}" if tasks else ""
    text = text.replace("-m assignment.check", f"-m assignment.check{more}")
    (folder / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
