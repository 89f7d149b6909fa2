"""The table of several runs, made from their folders."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from codebase.evaluate import ALL_TEST, TEST
from codebase.runs.folder import CHECKPOINTS, run_folder
from codebase.runs.metrics import Row, bounds_after
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.files import write_table

Statistic = tuple[str, Callable, int]  # its name, and the fewest runs that it needs
STATISTICS: list[Statistic] = [("average", fmean, 1), ("standard deviation", stdev, 2)]
COLUMNS = ("run", "NELBO", "KL", "REC", "NELBO, all test images", "training time", "steps", "data")


def make_table(runs: Sequence[Settings], failures: dict[int, str]) -> list[list[str]]:
    """The lines of the table: one for each run, then mean and standard deviation of the finished.

    The failures say by the run's number why it has no bounds.
    """
    lines, finished = [], []
    for settings in runs:
        rows, reason = _ended(settings, failures)
        if not rows:
            cells = [f"failed: {reason}", "", "", "", ""]
        else:
            finished.append(_numbers(rows))
            cells = [*map("{:.4f}".format, finished[-1]), _time(rows[TEST].seconds)]
        lines.append([str(settings.run), *cells, str(settings.iter_max), settings.dataset])
    for name, statistic, fewest in STATISTICS:
        if len(finished) >= fewest:
            values = map(statistic, zip(*finished, strict=True))
            lines.append([name, *map("{:.4f}".format, values), "", "", ""])
    return lines


def save_table(runs: Sequence[Settings], failures: dict[int, str]) -> Path:
    """Write the numbers of the runs that have finished; the file is named after all of them."""
    path = CHECKPOINTS / f"{runs[0].name}-{runs[-1].run:04d}_steps={runs[0].iter_max}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[Sequence[object]] = [[*COLUMNS[:5], "seconds", *COLUMNS[6:]]]
    for settings in runs:
        if rows := _ended(settings, failures)[0]:
            ends = (rows[TEST].seconds, settings.iter_max, settings.dataset)
            lines.append([settings.run, *_numbers(rows), *ends])
    write_table(path, lines)
    return path


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print the table as Markdown."""
    for line in [COLUMNS, ["---"] * len(COLUMNS), *table]:
        print(f"| {' | '.join(line)} |")


def _ended(settings: Settings, failures: dict[int, str]) -> tuple[dict[str, Row], str]:
    """The bounds that a run has ended with, by their images, or none and the reason."""
    if reason := failures.get(settings.run):
        return {}, reason
    try:
        return bounds_after(run_folder(settings), settings.iter_max), "no bounds in its folder"
    except UserError as error:  # its file is damaged
        return {}, str(error)


def _numbers(rows: dict[str, Row]) -> list[float]:
    return [*rows[TEST].bounds, rows[ALL_TEST].nelbo]


def _time(seconds: float) -> str:
    return "" if math.isnan(seconds) else "{:02d}:{:02d}".format(*divmod(int(seconds), 60))
