"""Replicates: several runs beside each other, and the report's table of their bounds."""

import multiprocessing
import os
import signal
import statistics
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from codebase import checkpoint, data, evaluate, visualize
from codebase.errors import Interrupted, UserError
from codebase.files import write_table
from codebase.machine import prepare_processor
from codebase.models.vae import VAE
from codebase.step import Settings, new_model
from codebase.train import train

COLUMNS = ("run", "NELBO", "KL", "REC", "NELBO, all test images", "training time")


def load_run(options: Namespace, run: int, device: torch.device) -> VAE:
    """Load the run's model of step `--iter_max`.

    Raises:
        CheckpointError, OSError: as `checkpoint.load_model`.
    """
    model = new_model(options.z, run).to(device)
    folder = checkpoint.CHECKPOINTS / model.name
    checkpoint.load_model(model, checkpoint.model_path(folder, options.iter_max))
    return model


def train_run(
    options: Namespace,
    run: int,
    images: data.Images,
    device: torch.device,
    bar_row: int | None = None,
) -> tuple[VAE, float]:
    """Train the run's model; the model and the seconds of training are returned.

    Raises:
        UserError, OSError: as `train.train`.
    """
    model = new_model(options.z, run).to(device)
    settings = Settings(
        options.z, run, options.iter_max, options.lr, options.lr_schedule, images.name
    )
    seconds = train(
        model,
        images,
        checkpoint.CHECKPOINTS / model.name,
        settings,
        iter_save=options.iter_save,
        resume=bool(options.resume),
        bar_row=bar_row,
    )
    return model, seconds


def title(options: Namespace, model: VAE, images: data.Images) -> str:
    """What pictures of the model are headed with."""
    return f"{model.name}, {options.iter_max} steps, {images.name}"


def replicate(options: Namespace, images: data.Images, device: torch.device) -> int:
    """Train the runs `--run`, `--run` + 1, ... in processes of their own and print their table.

    A run that fails is named in the table and does not stop the others.

    Returns:
        how many runs failed.

    Raises:
        KeyboardInterrupt, SystemExit: on a signal; every process has ended.
        OSError: the table cannot be written.
    """
    threads = torch.get_num_threads()
    jobs = options.jobs or (threads if device.type == "cpu" else 1)
    jobs = min(jobs, options.runs)
    share = max(1, threads // jobs)
    print(f"{options.runs} runs, {jobs} at a time, threads for each: {share}", file=sys.stderr)
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    bars = context.RLock()
    waiting = list(range(options.run, options.run + options.runs))[::-1]
    free_rows = list(range(jobs))[::-1]
    active: dict[Any, tuple[BaseProcess, Connection, int, int]] = {}
    rows: dict[int, list[float | None] | str] = {}
    try:
        while waiting or active:
            while waiting and free_rows:
                run, bar_row = waiting.pop(), free_rows.pop()
                process, results = _start(
                    context, options, run, images.name, device, share, bar_row, bars
                )
                active[process.sentinel] = process, results, run, bar_row
            for sentinel in wait(list(active)):
                process, results, run, bar_row = active.pop(sentinel)
                try:
                    rows[run] = results.recv()
                except EOFError:  # it died without a word
                    process.join()
                    rows[run] = f"failed: exit status {process.exitcode}"
                free_rows.append(bar_row)
    finally:
        stop([process for process, *_ in active.values()])
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)  # back from where the last bar left the cursor
    table = make_table(rows)
    path = checkpoint.CHECKPOINTS / f"report_z={options.z:02d}.csv"
    print(f"Bounds in nats per image, {images.name}, z = {options.z}, {options.iter_max} steps\n")
    for line in [COLUMNS, ["---"] * len(COLUMNS), *table]:
        print(f"| {' | '.join(line)} |")
    path.parent.mkdir(exist_ok=True)
    write_table(path, [COLUMNS, *table])
    print(f"Saved to {path}", file=sys.stderr)
    return sum(isinstance(row, str) for row in rows.values())


def make_table(rows: dict[int, list[float | None] | str]) -> list[list[str]]:
    """The lines of the table: one a run, then average and standard deviation of those finished.

    Args:
        rows: for each run NELBO, KL, REC, NELBO on all and seconds, or why there are none.
    """

    def line(name: str, values: list[float | None]) -> list[str]:
        """One line: its name, bounds in nats and seconds as minutes."""
        *bounds, seconds = values
        minutes = "" if seconds is None else f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
        return [name, *(f"{value:.4f}" for value in bounds), minutes]

    lines = []
    for run, row in sorted(rows.items()):
        lines.append(
            [str(run), row, "", "", "", ""] if isinstance(row, str) else line(str(run), row)
        )
    finished = [row[:-1] for row in rows.values() if not isinstance(row, str)]
    for name, statistic, least in [
        ("average", statistics.mean, 1),
        ("standard deviation", statistics.stdev, 2),
    ]:
        if len(finished) >= least:
            lines.append(line(name, [*map(statistic, zip(*finished, strict=True)), None]))
    return lines


def _start(context: BaseContext, *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Start a process that does `_work` and sends its row of the table."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(*arguments, sender))
    # Ctrl-C reaches every process of the terminal; the children leave it to this one.
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, usual)
    sender.close()
    return process, receiver


def _work(
    options: Namespace,
    run: int,
    dataset: str,
    device: torch.device,
    threads: int,
    bar_row: int,
    bars: Any,
    results: Connection,
) -> None:
    """What a run's own process does."""
    prepare_processor(threads)
    tqdm.set_lock(bars)  # so that the bars of all processes share the terminal
    status = 1
    # Standard output is the table's, and what a run alone says there would tear the bars.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            images = data.load(dataset, Path(options.data_dir))
            if options.train:
                model, seconds = train_run(options, run, images, device, bar_row)
            else:
                model, seconds = load_run(options, run, device), None
            report, everything = evaluate.measure(model, images).values()
            if options.figures:
                folder = checkpoint.CHECKPOINTS / model.name
                visualize.write_all(model, images, title(options, model, images), folder)
            results.send([*report, everything.nelbo, seconds])
            status = 0
        except Interrupted as stop:
            status = 128 + stop.signal
        except (UserError, OSError) as error:
            results.send(f"failed: {error}")
        except torch.OutOfMemoryError:
            results.send(f"failed: the device {device} has not enough memory free")
    sys.exit(status)


def stop(processes: list[BaseProcess]) -> None:
    """End the processes: those that train save their state, and none lasts over two seconds."""
    deadline = time.monotonic() + 1.5
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()
        process.join()
