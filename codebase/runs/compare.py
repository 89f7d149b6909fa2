"""The table of everything that was trained, a line for each setting, made from the folders."""

from statistics import fmean, stdev

from codebase.evaluate import ALL_TEST, TEST
from codebase.runs.folder import CHECKPOINTS, saved_steps
from codebase.runs.metrics import bounds_after
from codebase.runs.record import all_runs
from codebase.system.errors import UserError
from codebase.system.files import write_table

VALUES = ("NELBO", "KL", "REC", "NELBO, all test images", "seconds")
COLUMNS = ("settings", "steps", "runs", *(f"{v}{s}" for v in VALUES for s in ("", " deviation")))


def compare() -> None:
    """Print a line for each setting and save them as CSV, the lowest bound on all images first.

    Raises:
        UserError: nothing was trained here, or a metrics.csv is damaged.
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

    A run counts with the last of its models whose bounds are known. A deviation of one run is "".
    """
    found: dict[tuple[str, int], list[list[float]]] = {}
    for folder, settings in all_runs():
        for step in reversed(saved_steps(folder)):
            if rows := bounds_after(folder, step):
                test, everything = rows[TEST], rows[ALL_TEST]
                label = ", ".join(settings.parts[:-1])
                values = [*test.bounds, everything.nelbo, test.seconds]
                found.setdefault((label, step), []).append(values)
                break
    lines = []
    for (label, step), runs in found.items():
        line: list[str | int | float] = [label, step, len(runs)]
        for column in zip(*runs, strict=True):
            line += [fmean(column), stdev(column) if len(column) > 1 else ""]
        lines.append(line)
    return sorted(lines, key=lambda line: line[COLUMNS.index("NELBO, all test images")])


def _shown(line: list) -> list[str]:
    """The cells of a line as they are printed, mean and deviation together."""
    cells = list(map(str, line[:3]))
    for mean, deviation in zip(line[3::2], line[4::2], strict=True):
        cells.append(f"{mean:.2f}" if deviation == "" else f"{mean:.2f} ± {deviation:.2f}")
    return cells
