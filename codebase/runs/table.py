"""The table of several runs, made from their folders."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from codebase.runs.folder import CHECKPOINTS, run_folder
from codebase.runs.metrics import VALUES, Row, bounds_after, values
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.files import write_table

Statistic = tuple[str, Callable, int]  # its name, and the fewest runs that it needs
STATISTICS: list[Statistic] = [("average", fmean, 1), ("standard deviation", stdev, 2)]
COLUMNS = ("run", *VALUES[:-1], "training time", "steps", "data")  # on the screen


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
            *bounds, seconds = values(rows)
            finished.append(bounds)
            cells = [*map("{:.4f}".format, bounds), _time(seconds)]
        lines.append([str(settings.run), *cells, str(settings.iter_max), settings.dataset])
    for name, statistic, fewest in STATISTICS:
        if len(finished) >= fewest:
            numbers = map(statistic, zip(*finished, strict=True))
            lines.append([name, *map("{:.4f}".format, numbers), "", "", ""])
    return lines


def save_table(runs: Sequence[Settings], failures: dict[int, str]) -> Path:
    """Write the numbers of the runs that have finished; the file is named after all of them."""
    path = CHECKPOINTS / f"{runs[0].name}-{runs[-1].run:04d}_steps={runs[0].iter_max}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[Sequence[object]] = [("run", *VALUES, "steps", "data")]
    for settings in runs:
        if rows := _ended(settings, failures)[0]:
            lines.append([settings.run, *values(rows), settings.iter_max, settings.dataset])
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


def _time(seconds: float) -> str:
    return "" if math.isnan(seconds) else "{:02d}:{:02d}".format(*divmod(int(seconds), 60))
