"""Tables of several runs, made from their folders: Markdown on the screen, and CSV files."""

import math
import sys
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from codebase.evaluate import Measured
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.results import all_runs, read_results, trained_files
from codebase.settings import Settings
from codebase.system.errors import UserError, report_errors
from codebase.system.files import write_csv

BOUNDS = ("NELBO", "KL", "REC", "NELBO, all test images")
VALUES = (*BOUNDS, "seconds")


def report_runs(runs: Sequence[Settings], failures: dict[int, str]) -> int:
    """Save and print the table of several runs, and return the exit status, 1 if a run failed.

    Args:
        failures: the messages of the runs that failed, by their numbers.
    """
    first = runs[0]
    end = [str(first.iter_max), first.dataset]
    finished: dict[int, list[float]] = {}
    shown: list[list[str]] = []
    for settings in runs:
        measured = read_results(RunFolder(settings), settings.iter_max)
        if measured and settings.run not in failures:
            values = finished[settings.run] = _values(measured)
            cells = [*map("{:.4f}".format, values[:-1]), _minutes(values[-1])]
        else:
            cells = [f"failed: {failures.get(settings.run, 'no results')}", *[""] * 4]
        shown.append([str(settings.run), *cells, *end])
    statistics = _statistics(finished.values())[:-1]
    for i, name in enumerate(("average", "standard deviation")):
        if len(finished) > i:
            shown.append([name, *(f"{pair[i]:.4f}" for pair in statistics), "", "", ""])
    path = CHECKPOINTS / f"{first.name}-{runs[-1].run:04d}_steps={first.iter_max}.csv"
    lines = [[run, *values, *end] for run, values in finished.items()]
    not_saved: list[str] = []
    with report_errors(not_saved):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(path, [["run", *VALUES, "steps", "data"], *lines])
        print(f"Saved to {path}", file=sys.stderr)
    print(f"Bounds in nats per image, {path.stem}\n")
    _print_markdown(["run", *BOUNDS, "training time", "steps", "data"], shown)
    return int(len(finished) < len(runs) or bool(not_saved))


def compare() -> None:
    """Print and save a line for each combination of settings, the lowest bound first."""
    # Runs of different code are not averaged.
    groups: dict[tuple[str, int, str], list[list[float]]] = {}
    for folder in all_runs():
        step = max(folder.saved_steps("results"), default=0)
        if last := read_results(folder, step):
            changes = folder.settings.changes().items()
            label = ", ".join(f"{key}={value}" for key, value in changes if key != "run")
            key = label, step, str(trained_files(folder))
            groups.setdefault(key, []).append(_values(last))
        elif step:
            print(f"{folder.results(step)} is damaged; --train 0 writes it again", file=sys.stderr)
    if not groups:
        raise UserError(f"there are no finished runs in {CHECKPOINTS}; train some first")
    table = [([*key[:2], len(runs)], _statistics(runs)) for key, runs in groups.items()]
    table.sort(key=lambda line: line[1][BOUNDS.index("NELBO, all test images")])
    path = CHECKPOINTS / "compare.csv"
    header = ["settings", "steps", "runs"]
    names = [name for value in VALUES for name in (value, f"{value} deviation")]
    numbers = [["" if math.isnan(x) else x for pair in pairs for x in pair] for _, pairs in table]
    lines = [[*start, *cells] for (start, _), cells in zip(table, numbers, strict=True)]
    with report_errors([]):
        write_csv(path, [header + names, *lines])
    print(f"Bounds in nats per image, mean and standard deviation over runs; also in {path}\n")
    shown = [[*map(str, start), *map(_plus_minus, pairs)] for start, pairs in table]
    _print_markdown([*header, *VALUES], shown)


def _statistics(runs: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each of the VALUES; nan where too few are known."""
    pairs = []
    for column in zip(*runs, strict=True):
        known = [x for x in column if not math.isnan(x)]
        deviation = stdev(known) if len(known) > 1 else math.nan
        pairs.append((fmean(known) if known else math.nan, deviation))
    return pairs


def _print_markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    for cells in [header, ["---"] * len(header), *lines]:
        print(f"| {' | '.join(cells)} |")


def _values(measured: Measured) -> list[float]:
    return [*measured.subset, measured.all.nelbo, measured.seconds]


def _plus_minus(pair: tuple[float, float]) -> str:
    return " ± ".join(f"{x:.2f}" for x in pair if not math.isnan(x))


def _minutes(seconds: float) -> str:
    return "" if math.isnan(seconds) else "{:02d}:{:02d}".format(*divmod(int(seconds), 60))
