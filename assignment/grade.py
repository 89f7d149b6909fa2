"""Grade a class: a table of points, and a text for each student."""

import json
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from assignment import ROOT, TASKS, TASKS_OPTION, Task
from assignment.entries import Entry, entries
from assignment.sources import functions_in, suspicious
from assignment.submission import find
from codebase.arguments import Parser, number
from codebase.compute.processor import usable_cores
from codebase.system.errors import UserError, explain
from codebase.system.files import write_atomically, write_csv
from codebase.system.streams import configure_output, flush_output, make_bar

TABLE, RECORDS, FEEDBACK = "grades.csv", "grades.json", "feedback"


class Record(NamedTuple):
    """The result of grading a hand-in: points, and texts for the student and the teacher."""

    points: dict[str, int]  # for each task; empty if the check failed
    text: str
    read: str
    notes: list[str]
    functions: list[str] = []  # noqa: RUF012  # those of the tasks that are written
    key: str = ""  # a hash of all that decides the points; "" if they are decided anew each time


PENDING = Record({}, "", "", ["Not graded yet: run the same command again."])


def grade_one(entry: Entry, tasks: list[Task], version: str, earlier: dict[str, Record]) -> Record:
    """Grade a hand-in, or return its earlier record if nothing has changed since."""
    try:
        submission = find(entry.parts, runs=any(not task.file for task in tasks))
        key = sha256(repr([submission, tasks, version]).encode()).hexdigest()
        if key == earlier.get(entry.student, PENDING).key:
            return earlier[entry.student]
        from assignment import judging, report  # This import is slow.

        graded = judging.grade(submission, tasks, submission.run)
        results = sorted(graded, key=lambda result: tasks.index(result.task))
        sent = [functions_in(text) for text in submission.files.values()]
        written = [code[task.name] for code in sent for task in tasks if code.get(task.name)]
        points = {result.task.name: result.points for result in results}
        first, *notes = submission.notes
        notes += suspicious(submission.files)
        text = report.text(submission.notes, results)
        return Record(points, text, first, notes, written, key)
    except UserError as error:
        return Record({task.name: 0 for task in tasks}, f"{error}\n", "", [str(error)])
    except Exception as error:  # It costs no other hand-in.
        note = f"The check of this hand-in failed ({error!r}): grade it by hand."
        return Record({}, "Your hand-in will be graded by hand.\n", "", [note])


def write_table(path: Path, found: list[Entry], records: dict[str, Record]) -> None:
    """Write the table of a class, in which students without a record are not graded yet."""
    names = list(dict.fromkeys(name for record in records.values() for name in record.points))
    lines: list[list[object]] = [["student", *names, "sum", "late", "files read", "notes"]]
    for student, is_late, _ in found:
        points, _, read, notes, functions, _ = records.get(student, PENDING)
        equal = sorted(x for x in records if x != student and records[x].functions == functions)
        if equal and functions:
            notes = [*notes, f"Its functions are those of {', '.join(equal)}."]
        numbers = [points.get(name, "") for name in names]
        total, late = sum(points.values()) if points else "", "late" if is_late else ""
        lines.append([student, *numbers, total, late, read, " ".join(notes)])
    # A cell that begins with one of these signs is a formula for a spreadsheet.
    write_csv(path, [[re.sub("^[-=+@]", "'\\g<0>", str(x)) for x in line] for line in lines])


def grade_class(folder: Path, out: Path, tasks: list[Task], jobs: int) -> int:
    """Grade the hand-ins of a folder that are new or have changed, and return the exit status."""
    results = [out, out / TABLE, out / RECORDS, out / FEEDBACK]
    found, unknown = entries(folder, {path.resolve() for path in results})
    if unknown:
        print(f"These files belong to no student: {', '.join(unknown)}", file=sys.stderr)
    (out / FEEDBACK).mkdir(parents=True, exist_ok=True)
    earlier = dict[str, Record]()
    with suppress(OSError, ValueError, TypeError):  # There is no such file, or it is damaged.
        known = json.loads((out / RECORDS).read_bytes())
        earlier = {x.student: Record(**known[x.student]) for x in found if x.student in known}
    # Another version of the check may decide otherwise.
    parts = "assignment/*.py", "assignment/numbers.json", "codebase/**/*.py"
    version = repr([file.read_bytes() for part in parts for file in sorted(ROOT.glob(part))])
    graded = dict[str, Record]()
    pool = ThreadPoolExecutor(jobs)  # Each thread waits for a process that runs students' files.
    waiting = {pool.submit(grade_one, x, tasks, version, earlier): x.student for x in found}
    try:
        for done in make_bar(as_completed(waiting), "hand-ins", len(found)):
            student, record = waiting[done], done.result()
            graded[student] = record
            text = out / FEEDBACK / (re.sub(r"[^\w .,'()-]", "_", student) + ".txt")
            write_atomically(text, record.text.encode())
            content = {name: each._asdict() for name, each in (earlier | graded).items()}
            write_atomically(out / RECORDS, json.dumps(content, indent=1).encode())
            write_table(out / TABLE, found, graded)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    new = sum(graded[name] != earlier.get(name) for name in graded)
    print(f"{len(found)} hand-ins, {new} of them new or changed: {out / TABLE}, {out / FEEDBACK}/")
    return 0 if all(record.points for record in graded.values()) else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if a hand-in could not be graded."""
    parser = Parser(prog="assignment.grade", description=__doc__)
    add = parser.add_argument
    add("submissions", type=Path, metavar="SUBMISSIONS", help="the folder or zip of a class")
    add("--out", type=Path, metavar="DIR", help="folder of the results, by default SUBMISSIONS")
    add("--tasks", **TASKS_OPTION)
    add("--run", action="store_true", help="also judge a trained run of each hand-in")
    jobs = "hand-ins to grade at a time, by default one per core"
    add("--jobs", type=number(int, 1), metavar="N", default=usable_cores(), help=jobs)
    args = parser.parse_args(argv)
    tasks = [t for t in TASKS if (t.number or t.name in args.tasks) and (t.file or args.run)]
    folder, out = args.submissions, args.out or args.submissions
    try:
        with TemporaryDirectory() as temporary:
            if folder.suffix.lower() == ".zip":
                with ZipFile(folder) as archive:
                    archive.extractall(temporary)
                folder, out = Path(temporary), args.out or folder.with_suffix("")
            return grade_class(folder, out, tasks, args.jobs)
    except (UserError, OSError, BadZipFile) as error:
        parser.error(explain(error) or f"argument SUBMISSIONS: {folder}: {error}")


if __name__ == "__main__":
    configure_output()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # The tensors are small.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = flush_output(main())
    except KeyboardInterrupt:
        print("assignment.grade: interrupted; what was graded is kept", file=sys.stderr)
        os._exit(flush_output(128 + signal.SIGINT))  # without waiting for the other threads
    sys.exit(status)
