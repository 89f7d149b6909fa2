"""Grade a class: a table of points, and a text for each student."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile

from assignment import ROOT, TASKS, TASKS_OPTION, Task
from assignment.entries import Entry, entries
from assignment.sources import functions_in, parsed
from assignment.submission import find_in
from codebase.arguments import Parser, number
from codebase.compute.processor import usable_cores
from codebase.system.errors import UserError, explain
from codebase.system.files import write_atomically, write_csv
from codebase.system.streams import configure_output, flush_output

TABLE, RECORDS, FEEDBACK = "grades.csv", "grades.json", "feedback"
JOBS = "hand-ins to grade at a time, by default one per core"
Record = dict[str, Any]  # what is known about a hand-in: its points, texts and functions


def grade_one(entry: Entry, tasks: list[Task], version: str, earlier: Record) -> Record:
    """Grade a hand-in, or return its earlier record if nothing has changed since."""
    try:
        submission = find_in(entry.parts, runs=any(not task.file for task in tasks))
    except (UserError, OSError) as error:
        message = str(explain(error))
        points = {task.name: 0 for task in tasks}
        return {"points": points, "text": message, "read": "", "notes": [message], "functions": ""}
    key = sha256(repr((submission, tasks, version)).encode()).hexdigest()
    if earlier.get("key") == key:
        return earlier
    from assignment import check  # This import is slow.

    report = check.grade(submission, tasks, submission.run)
    functions = dict[str, str]()
    for text in submission.files.values():
        if tree := parsed(text):
            functions |= functions_in(tree, {task.name for task in tasks})
    written = sorted((name, code) for name, code in functions.items() if code)
    return {
        "key": key,
        "points": {result.task.name: result.points for result in report.results},
        "text": check.text(report),
        "read": submission.notes[0],
        "notes": [*submission.notes[1:], *report.for_teacher],
        "functions": sha256(repr(written).encode()).hexdigest() if written else "",
    }


def grade_all(calls: list[tuple[Any, ...]], jobs: int) -> Iterator[tuple[Entry, Record]]:
    """Call grade_one with each list of arguments, several at a time.

    Each process serves one call after another, and is replaced if a hand-in has ended it.

    Yields:
        an entry and its record, in the order in which they are ready.
    """
    calls, free = calls[::-1], list[ProcessPoolExecutor]()
    busy = dict[Future[Record], tuple[ProcessPoolExecutor, Entry]]()
    try:
        while calls or busy:
            while calls and len(busy) < jobs:
                # A child ignores Ctrl-C, which ends this process after the current hand-ins.
                pool = (
                    free.pop()
                    if free
                    else ProcessPoolExecutor(
                        1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
                    )
                )
                call = calls.pop()
                busy[pool.submit(grade_one, *call)] = pool, call[0]
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                pool, entry = busy.pop(future)
                try:
                    record = future.result()
                    free.append(pool)
                except Exception as error:
                    ended = isinstance(error, BrokenProcessPool)
                    reason = "its process was ended" if ended else f"{error!r}"
                    notes = [f"The check failed, {reason}: grade this hand-in by hand."]
                    record = {"points": {}, "text": "", "read": "", "notes": notes, "functions": ""}
                    pool.shutdown()
                yield entry, record
    finally:
        for pool in [*free, *(pool for pool, _ in busy.values())]:
            pool.shutdown(cancel_futures=True)


def write_results(
    out: Path, found: list[Entry], records: dict[str, Record], names: list[str]
) -> None:
    """Write the table of a class, the students' texts, and the records for the next call."""
    write_atomically(out / RECORDS, json.dumps(records, indent=1).encode())
    lines: list[list[object]] = [["student", *names, "sum", "late", "files read", "notes"]]
    for student, is_late, _ in found:
        if not (record := records.get(student)):
            continue
        points, notes = record["points"], list(record["notes"])
        equal = [name for name in records if records[name]["functions"] == record["functions"]]
        if record["functions"] and len(equal) > 1:
            others = [name for name in equal if name != student]
            notes.append(f"Its functions are those of {', '.join(others)}.")
        total = sum(points.values()) if points else ""
        row = [student, *(points.get(name, "") for name in names), total]
        lines.append([*row, "late" if is_late else "", record["read"], " ".join(notes)])
        text = out / FEEDBACK / (re.sub(r"[^\w .,()-]", "_", student) + ".txt")
        write_atomically(text, record["text"].encode())
    # A cell that begins with one of these signs is a formula for a spreadsheet.
    write_csv(out / TABLE, [[re.sub("^[-=+@]", "'\\g<0>", str(x)) for x in row] for row in lines])


def grade_class(folder: Path, out: Path, tasks: list[Task], jobs: int) -> int:
    """Grade the hand-ins of a folder that are new or have changed, and return the exit status."""
    from tqdm import tqdm

    ignored = {TABLE, RECORDS, FEEDBACK} | ({out.name} if out.parent == folder else set())
    found, unknown = entries(folder, ignored)
    if unknown:
        print(f"These files belong to no student: {', '.join(unknown)}", file=sys.stderr)
    (out / FEEDBACK).mkdir(parents=True, exist_ok=True)
    earlier = dict[str, Record]()
    with suppress(OSError, ValueError):
        earlier = json.loads((out / RECORDS).read_bytes())
    files = sorted((ROOT / "assignment").glob("*.*"))
    version = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    calls = [(entry, tasks, version, earlier.get(entry.student, {})) for entry in found]
    names, records = [task.name for task in tasks], dict[str, Record]()
    with tqdm(total=len(found), desc="hand-ins") as bar:
        for entry, record in grade_all(calls, jobs):
            records[entry.student] = record
            write_results(out, found, earlier | records, names)
            bar.update()
    new = sum(record != earlier.get(student) for student, record in records.items())
    print(f"{len(found)} hand-ins, {new} of them new or changed: {out / TABLE}, {out / FEEDBACK}/")
    return 0 if all(record["points"] for record in records.values()) else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 if a hand-in could not be graded."""
    parser = Parser(prog="assignment.grade", description=__doc__)
    add = parser.add_argument
    add("submissions", type=Path, metavar="SUBMISSIONS", help="the folder or zip of a class")
    add("--out", type=Path, metavar="DIR", help="folder of the results, by default SUBMISSIONS")
    add("--tasks", **TASKS_OPTION)
    add("--run", action="store_true", help="also judge a trained run of each hand-in")
    add(
        "--jobs",
        type=number(int, 1),
        metavar="N",
        default=usable_cores(),
        help="hand-ins graded at a time, by default one per core",
    )
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
    try:
        status = main()
    except KeyboardInterrupt:
        print("assignment.grade: interrupted; what was graded is kept", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(flush_output(status))
