"""Write the hand-out: the program without the bodies of the tasks' functions, and the checks."""

import ast
import re
import shutil
import sys
from pathlib import Path

from assignment import ROOT, TASKS, TASKS_OPTION, Task
from codebase.arguments import Parser
from codebase.system.errors import explain

# These files would give the solution away, or are for teachers.
LEFT_OUT = ("__pycache__", "explorer.*", "handout.py", "mistakes.md", "README.md")


def without_body(text: str, task: Task) -> str:
    """The text of a file with only the signature and the docstring of the task's function."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    function = next(each for each in functions if each.name == task.name)
    first = function.body[0]
    lines = text.splitlines(True)
    start = first.end_lineno if ast.get_docstring(function) else first.lineno - 1
    number = f"task {task.number}" if task.number else "a further task"
    statement = f'raise NotImplementedError("{number}: {task.summary}")\n'
    lines[start : function.end_lineno] = [" " * first.col_offset + statement]
    return "".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or exit with status 2 and a sentence."""
    parser = Parser("assignment.handout", description=__doc__)
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--tasks", **TASKS_OPTION)
    args = parser.parse_args(argv)
    if args.dir.exists() and (not args.dir.is_dir() or any(args.dir.iterdir())):
        parser.error(f"argument DIR: {args.dir} is not an empty folder; choose another one")
    try:
        write(args.dir, args.tasks)
    except OSError as error:
        parser.error(f"argument DIR: {explain(error)}")
    print(f"The hand-out is in {args.dir}; hand out all of it")
    return 0


def write(folder: Path, further: list[str]) -> None:
    """Write the hand-out of the assignment with these further tasks into a folder."""
    for name in ("codebase", "assignment"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / "docs").mkdir()
    for name in ("run_vae.py", "requirements.txt", "LICENSE", "docs/samples.png"):
        shutil.copy(ROOT / name, folder / name)
    readme = (ROOT / "assignment" / "README.md").read_text(encoding="utf-8").replace("](../", "](")
    for task in TASKS:
        included = task.number or task.name in further
        path = folder / task.file
        # The body of negative_iwae_bound would give task 2 away, so it is always removed.
        if task.file and (included or task.name == "negative_iwae_bound"):
            path.write_text(without_body(path.read_text(encoding="utf-8"), task), encoding="utf-8")
        readme = readme if included else re.sub(rf"\| \+ \| `{task.name}`.*\n", "", readme)
    options = f" --tasks {' '.join(further)}" if further else ""
    readme = readme.replace("-m assignment.check", f"-m assignment.check{options}")
    (folder / "README.md").write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
