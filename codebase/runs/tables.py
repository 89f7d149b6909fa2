"""Tables of several runs, made from their folders: Markdown on the screen, and CSV files."""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.results import all_runs, read_results, read_weighted, trained_files
from codebase.settings import Settings, dataset_title
from codebase.system.errors import UserError, report_errors
from codebase.system.files import write_csv

Values = dict[str, float]  # the numbers of a run by the names of their columns
SUBSET = ("NELBO", "KL", "REC")  # on the assignment's 100 test images
ALL, VALID, SECONDS = "NELBO, all test images", "NELBO, validation images", "seconds"


def read_values(folder: RunFolder, step: int) -> Values | None:
    """The numbers of a model for tables, seconds last; None if it was not measured."""
    measured = read_results(folder, step)
    if not measured:
        return None
    values = dict(zip(SUBSET, measured.subset[:3], strict=True)) | {ALL: measured.all.nelbo}
    if measured.valid:
        values[VALID] = measured.valid.nelbo
    values |= read_weighted(folder, step)
    return values | ({} if math.isnan(measured.seconds) else {SECONDS: measured.seconds})


def report_runs(runs: Sequence[Settings], failures: dict[int, str]) -> int:
    """Save and print the table of several runs, and return the exit status, 1 if a run failed.

    Args:
        failures: the messages of the runs that failed, by their numbers.
    """
    first = runs[0]
    end = [str(first.iter_max), first.dataset]
    finished: dict[int, Values] = {}
    for settings in runs:
        values = read_values(RunFolder(settings), settings.iter_max)
        if values and settings.run not in failures:
            finished[settings.run] = values
    names = _columns(finished.values())
    numbers = names[:-1]  # without the seconds
    shown: list[list[str]] = []
    for settings in runs:
        if values := finished.get(settings.run):
            time = _minutes(values.get(SECONDS, math.nan))
            cells = [*(_two_decimals(values.get(name, math.nan)) for name in numbers), time]
        else:
            message = failures.get(settings.run, "no results")
            cells = [f"failed: {message}", *[""] * len(numbers)]
        shown.append([str(settings.run), *cells, *end])
    statistics = _statistics(finished.values(), numbers)
    for i, name in enumerate(("average", "standard deviation")):
        if len(finished) > i:
            shown.append([name, *(_two_decimals(pair[i]) for pair in statistics), "", "", ""])
    path = CHECKPOINTS / f"{first.name}-{runs[-1].run:04d}_steps={first.iter_max}.csv"
    lines = [
        [run, *(values.get(name, "") for name in names), *end] for run, values in finished.items()
    ]
    not_saved: list[str] = []
    with report_errors(not_saved):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(path, [["run", *names, "steps", "data"], *lines])
        print(f"Saved to {path}", file=sys.stderr)
    print(f"Bounds in nats per image, {path.stem}\n")
    _print_markdown(["run", *numbers, "training time", "steps", "data"], shown)
    return int(len(finished) < len(runs) or bool(not_saved))


def compare() -> None:
    """Print a table for each data set and number of validation images, and save all in one file.

    A line has the runs of one combination of settings. The lowest bound on the validation images,
    or on all test images if none are held out, comes first.
    """
    # Runs of different code are not averaged.
    groups: dict[tuple[Settings, str], list[Values]] = {}
    for folder in all_runs():
        step = folder.settings.iter_max
        if values := read_values(folder, step):
            key = folder.settings._replace(run=0), str(trained_files(folder))
            groups.setdefault(key, []).append(values)
        elif step in folder.saved_steps("results"):
            print(f"{folder.results(step)} is damaged; --train 0 writes it again", file=sys.stderr)
    if not groups:
        raise UserError(f"there are no finished runs in {CHECKPOINTS}; train some first")
    tables: dict[tuple[str, int], list[tuple[Settings, list[Values]]]] = {}
    for (settings, _), runs in groups.items():
        tables.setdefault((settings.dataset, settings.valid), []).append((settings, runs))
    path = CHECKPOINTS / "compare.csv"
    print(f"Bounds in nats per image, mean ± standard deviation over runs; also in {path}")
    for (dataset, valid), lines in sorted(tables.items()):
        decisive = [VALID if valid else ALL]
        lines.sort(key=lambda line: _statistics(line[1], decisive)[0])
        names = _columns(values for _, runs in lines for values in runs)
        print(f"\n{dataset_title(dataset)}{f', {valid} validation images' if valid else ''}\n")
        shown = []
        for settings, runs in lines:
            start = [_label(settings), str(settings.iter_max), str(len(runs))]
            shown.append([*start, *map(_plus_minus, _statistics(runs, names))])
        _print_markdown(["settings", "steps", "runs", *names], shown)
    with report_errors([]):
        _write_comparison(path, [line for _, lines in sorted(tables.items()) for line in lines])


def _label(settings: Settings) -> str:
    """The settings that differ from the assignment's, apart from those that a table has anyway."""
    others = ("iter_max", "dataset", "valid", "run")
    return ", ".join(f"{key}={x}" for key, x in settings.changes().items() if key not in others)


def _write_comparison(path: Path, lines: Sequence[tuple[Settings, list[Values]]]) -> None:
    """Write a CSV file with a column for each setting and for the statistics of each number."""
    names = _columns(values for _, runs in lines for values in runs)
    columns = [name for name in Settings._fields if name not in ("iter_max", "run")]
    statistics = [x for name in names for x in (name, f"{name} deviation")]
    table: list[list[object]] = [[*columns, "steps", "runs", *statistics]]
    for settings, runs in lines:
        numbers = [x for pair in _statistics(runs, names) for x in pair]
        cells = ["" if math.isnan(x) else x for x in numbers]
        own = [getattr(settings, name) for name in columns]
        table.append([*own, settings.iter_max, len(runs), *cells])
    write_csv(path, table)


def _columns(runs: Iterable[Values]) -> list[str]:
    """The names of all numbers that runs have, the seconds last."""
    names = dict.fromkeys([*SUBSET, ALL, *(name for values in runs for name in values)])
    return [*(name for name in names if name != SECONDS), SECONDS]


def _statistics(runs: Iterable[Values], names: Sequence[str]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each number; nan where too few runs have it."""
    pairs = []
    for name in names:
        known = [values[name] for values in runs if name in values]
        deviation = stdev(known) if len(known) > 1 else math.nan
        pairs.append((fmean(known) if known else math.nan, deviation))
    return pairs


def _print_markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    for cells in [header, ["---"] * len(header), *lines]:
        print(f"| {' | '.join(cells)} |")


def _two_decimals(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.2f}"


def _plus_minus(pair: tuple[float, float]) -> str:
    return " ± ".join(f"{x:.2f}" for x in pair if not math.isnan(x))


def _minutes(seconds: float) -> str:
    return "" if math.isnan(seconds) else "{:02d}:{:02d}".format(*divmod(int(seconds), 60))
