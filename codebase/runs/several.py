"""Several runs: the same command for each of them, a process each, some at a time."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from tqdm import tqdm

from codebase.runs.folder import run_folder
from codebase.runs.metrics import METRICS, bounds_after
from codebase.settings import Settings
from codebase.system.errors import Interrupted, UserError
from codebase.system.signals import caught_signals


def run_each(
    runs: Sequence[Settings], command: Sequence[str], jobs: int, threads: int
) -> dict[int, str]:
    """Start a command for each run, `jobs` at a time, and wait until all have ended.

    Args:
        command: the program and its options, but for --run.
        threads: for all processes together.

    Returns:
        by their numbers, the sentences of the runs that failed.

    Raises:
        Interrupted: a signal came; it was passed on, and every process has saved and ended.
    """
    jobs = max(1, min(jobs, len(runs)))
    share = max(1, threads // jobs)
    print(f"{len(runs)} runs, {jobs} at a time, threads for each: {share}", file=sys.stderr)
    environment = os.environ | {"OMP_NUM_THREADS": str(share)}
    environment.pop("TORCHELASTIC_RUN_ID", None)  # each process of a team has runs of its own
    with suppress(OSError, ValueError):  # else a bar does not know how wide it may be
        environment["COLUMNS"] = str(os.get_terminal_size(sys.stderr.fileno()).columns)
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": PIPE}
    options: dict[str, Any] = streams | {"errors": "replace", "env": environment}
    waiting, started = iter(runs), list[Popen]()
    failures: dict[int, str] = {}

    def start_one_after_another(place: int) -> None:
        """Take runs that wait, and show the bar of each at a place on the screen."""
        bar = tqdm(bar_format="{desc}", position=place, leave=False, dynamic_ncols=True)
        while not caught and (settings := next(waiting, None)):
            before = _when_finished(settings)
            # As text, the carriage returns of a bar become ends of lines.
            process = Popen([*command, f"--run={settings.run}"], text=True, **options)
            started.append(process)
            if caught:
                process.terminate()
            last = ""
            for line in process.stderr or ():
                last = line.strip().removeprefix("run_vae.py: ") or last
                bar.set_description_str(last)
            if process.wait() and not caught:
                if process.returncode < 0:
                    last = f"its process was ended by signal {-process.returncode}"
                if _when_finished(settings) in (None, before):
                    failures[settings.run] = last
                else:  # its bounds are there; a picture has failed
                    tqdm.write(f"run {settings.run}: {last}", file=sys.stderr)
        bar.close()

    with caught_signals() as caught, ThreadPoolExecutor(jobs) as pool:
        working = [pool.submit(start_one_after_another, place) for place in range(jobs)]
        while not caught and wait(working, timeout=0.25).not_done:
            pass
        for process in started if caught else ():
            process.terminate()
    for work in working:
        work.result()
    if caught:
        raise Interrupted(
            "interrupted; the same command with --resume 1 goes on from what is saved", caught[0]
        )
    return failures


def _when_finished(settings: Settings) -> int | None:
    """When the bounds at the end of a run were written, by the file system; None without them."""
    folder = run_folder(settings)
    with suppress(UserError):
        if bounds_after(folder, settings.iter_max):
            return (folder / METRICS).stat().st_mtime_ns
    return None
