"""Replicates: several runs beside each other, and the table of their bounds."""

import csv
import multiprocessing
import os
import signal
import statistics
import sys
from argparse import Namespace
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from codebase import checkpoint, data, evaluate, explorer, visualize
from codebase.distributed import Team
from codebase.errors import Interrupted, explain
from codebase.files import write_table
from codebase.machine import prepare_processor
from codebase.progress import Bar
from codebase.settings import Settings
from codebase.signals import blocked_interrupts, caught_signals
from codebase.train import load_trained, train

COLUMNS = ("run", "NELBO", "KL", "REC", "NELBO, all test images", "training time", "steps", "data")


class Outcome(NamedTuple):
    """How a run ended: its bounds in nats per image, and the seconds of training if known."""

    bounds: list[float]  # NELBO, KL, REC, and NELBO on all test images
    seconds: float | None


def replicate(runs: list[Settings], args: Namespace, device: torch.device, team: Team) -> int:
    """Train or load runs that differ in their number, and save and print the table of their bounds.

    A run that fails stops no other. The processes of a team share the runs.

    Returns:
        the exit status, in the first process of the team: 1 if a run failed.

    Raises:
        Interrupted: a signal came; every process has saved and ended.
        OSError: the table cannot be written.
    """
    used = any(checkpoint.is_used(checkpoint.run_folder(settings)) for settings in runs)
    if used and args.train and not args.resume:
        print("Earlier runs are now NAME.1, ...; --resume 1 would have gone on", file=sys.stderr)
    threads = torch.get_num_threads()
    jobs = args.jobs or (threads if device.type == "cpu" and team.size == 1 else 1)
    outcomes = team.gather(_side_by_side(runs[team.rank :: team.size], args, device, jobs))
    if not team.first:
        return 0
    table = make_table(runs, outcomes)
    path = table_path(runs)
    save_table(path, table)  # before it is printed, since standard output may be closed
    print(f"Bounds in nats per image, {path.stem}\n")
    for line in [COLUMNS, ["---"] * len(COLUMNS), *table]:
        print(f"| {' | '.join(line)} |")
    return int(any(isinstance(outcome, str) for outcome in outcomes.values()))


def _side_by_side(
    runs: list[Settings], args: Namespace, device: torch.device, jobs: int
) -> dict[int, Outcome | str]:
    """The outcomes of runs that have a process each, at most `jobs` of them at a time.

    Each tells this one, the parent, through a pipe how far it is and how it ended. The parent alone
    owns the terminal and the table.
    """
    jobs = max(1, min(jobs, len(runs)))
    share = max(1, torch.get_num_threads() // jobs)
    waiting = list(runs)
    active: dict[Connection, tuple[int, BaseProcess, Bar]] = {}
    outcomes: dict[int, Outcome | str] = {}
    with caught_signals() as caught:
        print(f"{len(runs)} runs, {jobs} at a time, threads for each: {share}", file=sys.stderr)
        try:
            while (waiting or active) and not caught:
                while waiting and len(active) < jobs:
                    settings = waiting.pop(0)
                    pipe, process = _start(settings, args, device, share)
                    bar = Bar(settings.run, settings.iter_max, leave=False)
                    active[pipe] = settings.run, process, bar
                for pipe in wait(list(active), timeout=0.25):
                    run, process, bar = active[pipe]
                    try:
                        message = pipe.recv()
                    except (EOFError, OSError):  # the process has ended
                        del active[pipe]
                        process.join()
                        bar.close()
                        reason = f"failed: its process ended with status {process.exitcode}"
                        outcomes.setdefault(run, reason)
                        continue
                    if "outcome" in message:
                        outcomes[run] = message["outcome"]
                    elif "trouble" in message:
                        tqdm.write(f"run {run}: {message['trouble']}", file=sys.stderr)
                    else:
                        bar.show(**message)
        finally:
            _stop(active)
    if caught:
        raise Interrupted(
            "interrupted; the same command with --resume 1 goes on from what is saved", caught[0]
        )
    return outcomes


def table_path(runs: list[Settings]) -> Path:
    """The file of the table of these runs."""
    name = f"{runs[0].name}-{runs[-1].run:04d}_steps={runs[0].iter_max}.csv"
    return checkpoint.CHECKPOINTS / name


def make_table(runs: list[Settings], outcomes: dict[int, Outcome | str]) -> list[list[str]]:
    """The lines of the table: one for each run, then mean and standard deviation of the finished.

    Args:
        outcomes: by the run's number, how it ended or why it failed.
    """
    lines, finished = [], []
    for settings in runs:
        outcome = outcomes[settings.run]
        if isinstance(outcome, str):
            cells = [outcome, "", "", "", ""]
        else:
            finished.append(outcome.bounds)
            cells = [*map("{:.4f}".format, outcome.bounds), ""]
            if outcome.seconds is not None:
                cells[-1] = "{:02d}:{:02d}".format(*divmod(int(outcome.seconds), 60))
        lines.append([str(settings.run), *cells, str(settings.iter_max), settings.dataset])
    for name, statistic in [("average", statistics.mean), ("standard deviation", statistics.stdev)]:
        if len(finished) > (statistic is statistics.stdev):
            values = map(statistic, zip(*finished, strict=True))
            lines.append([name, *map("{:.4f}".format, values), "", "", ""])
    return lines


def save_table(path: Path, table: list[list[str]]) -> None:
    """Write the table, unless there is one of the same runs in which more of them are finished."""
    earlier = []
    if path.exists():
        with open(path, newline="", errors="replace") as file, suppress(csv.Error):
            earlier = list(csv.reader(file))
    if _finished(earlier) > _finished(table):
        print(f"Kept {path}, in which more runs are finished", file=sys.stderr)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, [COLUMNS, *table])
    print(f"Saved to {path}", file=sys.stderr)


def _finished(table: list[list[str]]) -> int:
    """How many runs of a table have bounds."""
    return sum(len(line) == len(COLUMNS) and line[0].isdigit() and line[2] != "" for line in table)


def _start(
    settings: Settings, args: Namespace, device: torch.device, threads: int
) -> tuple[Connection, BaseProcess]:
    """Start a process that does `_work`, and give the end of its pipe."""
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(settings, args, device, threads, sender))
    with blocked_interrupts():  # a terminal sends them to every process, and this one acts for all
        process.start()
    sender.close()
    return receiver, process


def _stop(active: dict[Connection, tuple[int, BaseProcess, Bar]]) -> None:
    """End the processes that still work; those that train save their state."""
    for pipe, (_, process, _) in active.items():
        pipe.close()
        process.terminate()
    for _, process, bar in active.values():
        process.join(60)
        process.kill()
        process.join()
        bar.close()


def _work(
    settings: Settings, args: Namespace, device: torch.device, threads: int, pipe: Connection
) -> None:
    """What the process of a run does."""
    for number in (1, 2):  # the terminal is the parent's
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)

    def show(step: int, loss: float) -> None:
        """Tell the parent how far the run is."""
        try:
            pipe.send({"step": step, "loss": loss})
        except OSError:  # it has gone: do as if it had passed on a signal
            signal.raise_signal(signal.SIGTERM)

    try:
        prepare_processor(threads)
        images = data.load(settings.dataset, Path(args.data_dir))
        folder = checkpoint.run_folder(settings)
        if args.train:
            options = {"iter_save": args.iter_save, "resume": bool(args.resume)}
            model = train(settings, images, device, show=show, **options)
        else:
            model = load_trained(settings, device)
        subset, everything = evaluate.measure(model, images).values()
        seconds = checkpoint.training_seconds(folder, settings.iter_max)
        pipe.send({"outcome": Outcome([*subset, everything.nelbo], seconds)})
    except Interrupted as stop:
        sys.exit(stop.status)
    except Exception as error:
        pipe.send({"outcome": f"failed: {explain(error) or repr(error)}"})
        return
    try:  # what fails from here on costs no bounds
        if args.figures:
            visualize.write_all(model, images, settings)
        if args.explorer:
            explorer.write(model, images, settings.title, folder / "explorer.html")
    except Exception as error:
        pipe.send({"trouble": explain(error) or repr(error)})
