"""Several runs as several processes of the same command."""

import os
import re
import sys
import time
from collections.abc import Sequence
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from typing import IO, Any

from codebase.compute.processor import ONE_OF_SEVERAL, is_number_of_user
from codebase.settings import Settings
from codebase.system.errors import ONLY_MEASURED, Interrupted
from codebase.system.signals import caught_signals
from codebase.system.streams import is_interactive, make_bar


def run_each(
    runs: Sequence[Settings], command: Sequence[str], jobs: int, threads: int
) -> dict[int, str]:
    """Start a command for each run, `jobs` at a time, and wait until all have ended.

    Args:
        command: the program and its options, to which --run is added.
        threads: for all processes together.

    Returns the last messages of the runs that failed, by their numbers. Raises Interrupted after a
    signal, once every process has saved and ended.
    """
    jobs = max(1, min(jobs, len(runs)))
    threads_each = max(1, threads // jobs)
    print(f"{len(runs)} runs, {jobs} at a time, threads for each: {threads_each}", file=sys.stderr)
    environment = os.environ | {ONE_OF_SEVERAL: str(threads_each)}
    environment.pop("OMP_NUM_THREADS", None)
    if is_number_of_user():  # All runs share it.
        environment["OMP_NUM_THREADS"] = str(threads_each)
    environment.pop("TORCHELASTIC_RUN_ID", None)  # a child is no process of torchrun
    interactive = is_interactive()
    if interactive:
        environment.setdefault("TQDM_MININTERVAL", "0.25")
    waiting = [settings.run for settings in runs]
    running: dict[int, tuple[Popen, IO[str]]] = {}
    last = dict.fromkeys(waiting, "")
    failures: dict[int, str] = {}
    shares = dict.fromkeys(waiting, 0.0)  # how much of each running run is done
    shown = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]"
    hidden = {} if interactive else {"disable": True}
    bar = make_bar(total=len(runs), desc="runs", bar_format=shown, smoothing=0, **hidden)
    with TemporaryDirectory() as logs, caught_signals() as caught, bar:
        try:
            while running or (waiting and not caught):
                while waiting and len(running) < jobs and not caught:
                    run = waiting.pop(0)
                    running[run] = _start([*command, f"--run={run}"], environment, f"{logs}/{run}")
                time.sleep(0.25)
                for run, (process, log) in list(running.items()):
                    if caught:
                        process.terminate()
                    status = process.poll()
                    for line in filter(str.strip, log.read().splitlines()):
                        last[run] = line.rstrip()
                        if part := re.match(rf"run {run}: +(\d+)%", line):
                            shares[run] = int(part[1]) / 100
                        if not interactive:
                            print(last[run], file=sys.stderr)
                    if status is not None:
                        log.seek(0)
                        reason = _reason(log.read())
                        log.close()
                        del running[run]
                    if status == ONLY_MEASURED:
                        bar.write(f"run {run}: {reason}", file=sys.stderr)
                    elif status:
                        by_signal = f"its process was ended by signal {-status}"
                        failures[run] = by_signal if status < 0 else reason
                if not caught:
                    ended = len(runs) - len(waiting) - len(running)
                    bar.n = ended + sum(shares[run] for run in running)
                # The bar of a run begins with its number and its progress in percent.
                bar.set_postfix_str(", ".join(last[run].partition("|")[0] for run in running))
        finally:  # nothing is running, unless an error ended the loop
            for process, _ in running.values():
                process.terminate()
    if caught:
        advice = "the same command with --resume 1 continues from what is saved"
        raise Interrupted(f"interrupted; {advice}", caught[0])
    return failures


def _start(command: list[str], environment: dict[str, str], log: str) -> tuple[Popen, IO[str]]:
    """Start a process that writes its standard error into a log, and open the log."""
    with open(log, "w") as file:
        streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": file}
        # In a session of its own, the process gets no Ctrl-C from the terminal.
        process = Popen(command, env=environment, start_new_session=True, **streams)
    # Reading turns the carriage returns of a bar into ends of lines.
    return process, open(log, errors="replace")


def _reason(log: str) -> str:
    """The last line of a log that names an error, or else its last line."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    # PyTorch's messages about a GPU have further lines, with advice for its developers.
    named = [line for line in lines if re.match(r"run_vae\.py: |[\w.]+(Error|Exception)\b", line)]
    return (named or lines or [""])[-1].removeprefix("run_vae.py: ")
