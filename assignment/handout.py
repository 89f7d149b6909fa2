"""Write the hand-out: the program without the bodies of the tasks' functions, and the checks."""

import ast
import re
import shutil
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from assignment import ROOT, TASKS, TASKS_OPTION, Task
from codebase.arguments import Parser
from codebase.system.errors import explain

# These files would give the solution away, or are for teachers.
LEFT_OUT = ["__pycache__", "explorer.*", "mistakes.*", "README.md"]
LEFT_OUT += ["handout.py", "grade.py", "entries.py", "gradescope"]
WHOLE = ("run_vae.py", "requirements.txt", "LICENSE", ".gitignore", "docs/samples.png")


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


def write(folder: Path, further: list[str], options: str, words: str) -> None:
    """Write the hand-out with further tasks; the teacher's words come first in its README."""
    for name in ("codebase", "assignment"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / "docs").mkdir()
    for name in WHOLE:
        shutil.copy(ROOT / name, folder / name)
    readme = (ROOT / "assignment" / "README.md").read_text(encoding="utf-8").replace("](../", "](")
    readme = re.sub(r"<!-- .* -->\n\n", words, readme, count=1)
    for task in TASKS:
        included = task.number or task.name in further
        path = folder / task.file
        # The body of negative_iwae_bound would give task 2 away, so it is always removed.
        if task.file and (included or task.name == "negative_iwae_bound"):
            path.write_text(without_body(path.read_text(encoding="utf-8"), task), encoding="utf-8")
        if not included:  # removes its row in the table of tasks, and its paragraph
            readme = re.sub(rf"\| \+ \| `{task.name}`.*\n", "", readme)
            readme = re.sub(rf"\*\*\+ `{task.name}`.*?\n\n(?=\*\*|##)", "", readme, flags=re.DOTALL)
    readme = readme.replace("-m assignment.check", f"-m assignment.check {options}".rstrip())
    (folder / "README.md").write_text(readme, encoding="utf-8")


def write_archive(path: Path, folder: Path, options: str) -> None:
    """Write the archive for Gradescope, which checks submissions with the hand-out in a folder."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for script in sorted((ROOT / "assignment" / "gradescope").iterdir()):
            member = ZipInfo(script.name)
            member.external_attr = 0o100755 << 16  # executable
            text = script.read_text().replace('OPTIONS=""', f'OPTIONS="{options}"')
            archive.writestr(member, text)
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path("handout", file.relative_to(folder)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or exit with status 2 and a sentence."""
    parser = Parser("assignment.handout", description=__doc__)
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--tasks", **TASKS_OPTION)
    parser.add_argument("--text", type=Path, metavar="FILE", help="your words for the README")
    archive = "also write an autograder for Gradescope"
    parser.add_argument("--gradescope", type=Path, metavar="FILE.zip", help=archive)
    args = parser.parse_args(argv)
    if args.gradescope and args.gradescope.suffix != ".zip":
        parser.error(f"argument --gradescope: the name of {args.gradescope} must end in .zip")
    if args.dir.exists() and (not args.dir.is_dir() or any(args.dir.iterdir())):
        parser.error(f"argument DIR: {args.dir} is not an empty folder; choose another one")
    try:
        words = f"{args.text.read_text(encoding='utf-8').strip()}\n\n" if args.text else ""
        options = f"--tasks {' '.join(args.tasks)}" if args.tasks else ""
        write(args.dir, args.tasks, options, words)
        if args.gradescope:
            write_archive(args.gradescope, args.dir, options)
            print(f"The archive for Gradescope is {args.gradescope}")
    except (OSError, UnicodeDecodeError) as error:
        parser.error(explain(error) or f"argument --text: {args.text} is not UTF-8")
    print(f"The hand-out is in {args.dir}; hand out all of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
