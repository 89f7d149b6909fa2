"""Several runs: the same command for each of them, a process each, some at a time."""

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from tqdm import auto, tqdm

from codebase.settings import Settings
from codebase.system.errors import ONLY_MEASURED, Interrupted
from codebase.system.progress import is_drawn
from codebase.system.signals import caught_signals


def run_each(
    runs: Sequence[Settings], command: Sequence[str], jobs: int, threads: int
) -> dict[int, str]:
    """Start a command for each run, `jobs` at a time, and wait until all have ended.

    Args:
        command: the program and its options, to which --run is added.
        threads: for all processes together.

    Returns the sentences of the runs that failed, by their numbers.

    Raises:
        Interrupted: a signal came; it was passed on, and every process has saved and ended.
    """
    jobs = max(1, min(jobs, len(runs)))
    share = max(1, threads // jobs)
    print(f"{len(runs)} runs, {jobs} at a time, threads for each: {share}", file=sys.stderr)
    environment = os.environ | {"OMP_NUM_THREADS": str(share)}
    environment.pop("TORCHELASTIC_RUN_ID", None)  # each process of a team has runs of its own
    drawn = is_drawn()
    hidden = {} if drawn else {"disable": True}  # else the environment decides
    if drawn:
        environment.setdefault("TQDM_MININTERVAL", "0.25")
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": PIPE}
    options: dict[str, Any] = streams | {"errors": "replace", "env": environment}
    waiting, started = iter(runs), list[Popen]()
    failures: dict[int, str] = {}

    def start_one_after_another(place: int) -> None:
        """Take runs that wait, and show the bar of each at a place on the screen."""
        with suppress(AttributeError):  # on Windows
            # Processes inherit this: a terminal's Ctrl-C is passed on to them as SIGTERM, and none
            # prints the traceback of a Python that was only starting.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        bar = auto.tqdm(bar_format="{desc}", position=place, leave=False, **hidden)
        while not caught and (settings := next(waiting, None)):
            last = ""
            # As text, the carriage returns of a bar become ends of lines.
            with Popen([*command, f"--run={settings.run}"], text=True, **options) as process:
                started.append(process)
                if caught:
                    process.terminate()
                for line in filter(str.strip, process.stderr or ()):
                    last = line.strip().removeprefix("run_vae.py: ")
                    if drawn:
                        bar.set_description_str(last)
                    else:
                        print(last, file=sys.stderr)
            status = process.returncode
            if status == ONLY_MEASURED:
                tqdm.write(f"run {settings.run}: {last}", file=sys.stderr)
            elif status and not caught:
                by_signal = f"its process was ended by signal {-status}"
                failures[settings.run] = by_signal if status < 0 else last
        bar.close()

    with caught_signals() as caught, ThreadPoolExecutor(jobs) as pool:
        working = [pool.submit(start_one_after_another, place) for place in range(jobs)]
        while not caught and wait(working, timeout=0.25).not_done:
            pass
        for process in started if caught else ():
            process.terminate()
    if drawn:  # below other bars, tqdm leaves the cursor where it was
        print("\r", end="", file=sys.stderr)
    for work in working:
        work.result()
    if caught:
        raise Interrupted(
            "interrupted; the same command with --resume 1 goes on from what is saved", caught[0]
        )
    return failures
