"""Grade a class: a table of points, and a text for each student."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from assignment import ROOT, TASKS, TASKS_OPTION, Task
from assignment.entries import Entry, entries
from assignment.sources import functions_in, sum_of
from assignment.submission import find_in
from codebase.arguments import Parser, number
from codebase.compute.processor import usable_cores
from codebase.system.errors import UserError, explain
from codebase.system.files import write_atomically, write_csv
from codebase.system.streams import configure_output, flush_output

TABLE, RECORDS, FEEDBACK = "grades.csv", "grades.json", "feedback"


class Record(NamedTuple):
    """What is known about a hand-in: its points, and texts for the student and the teacher."""

    points: dict[str, int]  # for each task; empty if the check failed
    text: str
    read: str
    notes: list[str]
    functions: str = ""  # a sum of all functions of the tasks, if one that was asked is written
    key: str = ""  # a sum of all that decides the points; "" if they are decided anew each time


def grade_one(entry: Entry, tasks: list[Task], version: str, earlier: Record | None) -> Record:
    """Grade a hand-in, or return its earlier record if nothing has changed since."""
    try:
        submission = find_in(entry.parts, runs=any(not task.file for task in tasks))
    except (UserError, OSError) as error:
        message = str(explain(error))
        return Record({task.name: 0 for task in tasks}, f"{message}\n", "", [message])
    key = sum_of(repr([submission, tasks, version]))
    if earlier and earlier.key == key:
        return earlier
    from assignment import check  # This import is slow.

    report = check.grade(submission, tasks, submission.run)
    names, code = {task.name for task in TASKS}, dict[str, str]()
    for text in submission.files.values():
        code |= functions_in(text, names)
    is_written = any(code.get(task.name) for task in tasks)
    points = {result.task.name: result.points for result in report.results}
    first, *notes = submission.notes
    notes += report.for_teacher
    functions = sum_of(repr(sorted(code.items()))) if is_written else ""
    return Record(points, check.text(report), first, notes, functions, key)


def _prepare() -> None:
    """Prepare a process that grades, before it imports PyTorch."""
    os.environ["OMP_NUM_THREADS"] = "1"  # There is a process for each core.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The first process ends the others.


def _new_pool() -> ProcessPoolExecutor:
    """A process that serves one call after another."""
    return ProcessPoolExecutor(1, get_context("spawn"), _prepare)


def call_all(
    function: Callable[..., Record], calls: list[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[Any, Record]]:
    """Call a function with each tuple of arguments, in several processes.

    A process serves one call after another, and is replaced if a call has ended it.

    Yields:
        the first argument and the record, in the order in which they are ready.
    """
    waiting, free = calls[::-1], [_new_pool() for _ in range(min(jobs, len(calls)))]
    busy = dict[Future[Record], tuple[ProcessPoolExecutor, Any]]()
    try:
        while waiting or busy:
            while waiting and free:
                pool, call = free.pop(), waiting.pop()
                busy[pool.submit(function, *call)] = pool, call[0]
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                pool, first = busy.pop(future)
                if error := future.exception():
                    pool.shutdown()
                    pool = _new_pool()
                    reason = "it was ended" if isinstance(error, BrokenProcessPool) else repr(error)
                    notes = [f"The check of this hand-in failed ({reason}): grade it by hand."]
                    record = Record({}, "Your hand-in will be graded by hand.\n", "", notes)
                free.append(pool)
                yield first, record if error else future.result()
    finally:
        for pool in [*free, *(pool for pool, _ in busy.values())]:
            pool.shutdown()


def write_table(path: Path, found: list[Entry], records: dict[str, Record]) -> None:
    """Write the table of a class."""
    names = list(dict.fromkeys(name for record in records.values() for name in record.points))
    lines: list[list[object]] = [["student", *names, "sum", "late", "files read", "notes"]]
    for student, is_late, _ in found:
        if record := records.get(student):
            points, notes = record.points, record.notes
            equal = [
                x for x in records if x != student and records[x].functions == record.functions
            ]
            if equal and record.functions:
                notes = [*notes, f"Its functions are those of {', '.join(equal)}."]
            numbers = [points.get(name, "") for name in names]
            total, late = sum(points.values()) if points else "", "late" if is_late else ""
            lines.append([student, *numbers, total, late, record.read, " ".join(notes)])
    # A cell that begins with one of these signs is a formula for a spreadsheet.
    write_csv(path, [[re.sub("^[-=+@]", "'\\g<0>", str(x)) for x in line] for line in lines])


def grade_class(folder: Path, out: Path, tasks: list[Task], jobs: int) -> int:
    """Grade the hand-ins of a folder that are new or have changed, and return the exit status."""
    from tqdm import tqdm

    results = [out, out / TABLE, out / RECORDS, out / FEEDBACK]
    found, unknown = entries(folder, {path.resolve() for path in results})
    if unknown:
        print(f"These files belong to no student: {', '.join(unknown)}", file=sys.stderr)
    (out / FEEDBACK).mkdir(parents=True, exist_ok=True)
    earlier = dict[str, Record]()
    with suppress(OSError, ValueError, TypeError):  # There is no such file, or it is damaged.
        known = json.loads((out / RECORDS).read_bytes())
        names = {entry.student for entry in found}
        earlier = {name: Record(**known[name]) for name in known if name in names}
    # Another version of the check may decide otherwise.
    files = sorted(each for each in (ROOT / "assignment").glob("*.*") if each.name != "README.md")
    version = sum_of(repr([file.read_bytes() for file in files]))
    calls = [(entry, tasks, version, earlier.get(entry.student)) for entry in found]
    records = dict(earlier)
    with tqdm(total=len(found), desc="hand-ins") as bar:
        for (student, *_), record in call_all(grade_one, calls, jobs):
            records[student] = record
            text = out / FEEDBACK / (re.sub(r"[^\w .,'()-]", "_", student) + ".txt")
            write_atomically(text, record.text.encode())
            content = {student: record._asdict() for student, record in records.items()}
            write_atomically(out / RECORDS, json.dumps(content, indent=1).encode())
            write_table(out / TABLE, found, records)
            bar.update()
    new = sum(record != earlier.get(student) for student, record in records.items())
    print(f"{len(found)} hand-ins, {new} of them new or changed: {out / TABLE}, {out / FEEDBACK}/")
    return 0 if all(record.points for record in records.values()) else 1


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
    except BadZipFile as error:
        parser.error(f"argument SUBMISSIONS: {folder}: {error}")
    except (UserError, OSError) as error:
        parser.error(str(explain(error)))


if __name__ == "__main__":
    configure_output()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except KeyboardInterrupt:
        print("assignment.grade: interrupted; what was graded is kept", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(flush_output(status))
