"""The table of everything that was trained, a line for each setting, made from the folders."""

import math
from statistics import fmean, stdev

from codebase.evaluate import TEST
from codebase.runs.folder import CHECKPOINTS
from codebase.runs.metrics import VALUES, last_bounds, values
from codebase.runs.record import all_runs
from codebase.system.errors import UserError, told
from codebase.system.files import write_table

COLUMNS = ("settings", "steps", "runs", *(f"{v}{s}" for v in VALUES for s in ("", " deviation")))


def compare() -> None:
    """Print a line for each setting and save them as CSV, the lowest bound on all images first.

    Raises:
        UserError: nothing was trained here.
    """
    lines = compared()
    if not lines:
        raise UserError(f"there are no runs with bounds in {CHECKPOINTS}; train some first")
    path = CHECKPOINTS / "compare.csv"
    write_table(path, [COLUMNS, *lines])
    print(f"Bounds in nats per image, mean and standard deviation over runs; also in {path}\n")
    for cells in [[*COLUMNS[:3], *VALUES], ["---"] * 8, *map(_shown, lines)]:
        print(f"| {' | '.join(cells)} |")


def compared() -> list[list[str | int | float]]:
    """The lines of the table, with a mean and a deviation for each of VALUES.

    A run counts with the last bounds in its metrics.csv. What is not known, as the deviation of one
    run, is "".
    """
    found: dict[tuple[str, int], list[list[float]]] = {}
    for folder, settings in all_runs():
        with told([]):  # a damaged file costs no other run its place
            if rows := last_bounds(folder):
                key = ", ".join(settings.parts[:-1]), rows[TEST].step
                found.setdefault(key, []).append(values(rows))
    lines = []
    for (label, step), runs in found.items():
        line: list[str | int | float] = [label, step, len(runs)]
        for column in zip(*runs, strict=True):
            known = [value for value in column if not math.isnan(value)]  # as seconds may not be
            line.append(fmean(known) if known else "")
            line.append(stdev(known) if len(known) > 1 else "")
        lines.append(line)
    return sorted(lines, key=lambda line: line[COLUMNS.index("NELBO, all test images")])


def _shown(line: list) -> list[str]:
    """The cells of a line as they are printed, mean and deviation together."""
    cells = list(map(str, line[:3]))
    for pair in zip(line[3::2], line[4::2], strict=True):
        cells.append(" ± ".join(f"{value:.2f}" for value in pair if value != ""))
    return cells
