"""The table of several runs, made from their folders."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from codebase.evaluate import ALL_TEST, TEST
from codebase.runs.folder import CHECKPOINTS, run_folder
from codebase.runs.metrics import bounds_after
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
        reason = failures.get(settings.run)
        try:
            rows = {} if reason else bounds_after(run_folder(settings), settings.iter_max)
        except UserError as error:  # its file is damaged
            rows, reason = {}, str(error)
        if not rows:
            cells = [f"failed: {reason or 'no bounds in its folder'}", "", "", "", ""]
        else:
            finished.append([*rows[TEST].bounds, rows[ALL_TEST].bounds.nelbo])
            cells = [*map("{:.4f}".format, finished[-1]), _time(rows[TEST].seconds)]
        lines.append([str(settings.run), *cells, str(settings.iter_max), settings.dataset])
    for name, statistic, fewest in STATISTICS:
        if len(finished) >= fewest:
            values = map(statistic, zip(*finished, strict=True))
            lines.append([name, *map("{:.4f}".format, values), "", "", ""])
    return lines


def save_table(runs: Sequence[Settings], table: Sequence[Sequence[str]]) -> Path:
    """Write the table of these runs into a file that is named after them."""
    path = CHECKPOINTS / f"{runs[0].name}-{runs[-1].run:04d}_steps={runs[0].iter_max}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, [COLUMNS, *table])
    return path


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print the table as Markdown."""
    for line in [COLUMNS, ["---"] * len(COLUMNS), *table]:
        print(f"| {' | '.join(line)} |")


def _time(seconds: float) -> str:
    return "" if math.isnan(seconds) else "{:02d}:{:02d}".format(*divmod(int(seconds), 60))
