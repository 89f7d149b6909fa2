"""A run's numbers: the rows of metrics.csv, which are all that tables and curves read."""

import csv
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from codebase.evaluate import ALL_TEST, TEST, Bounds
from codebase.runs.folder import locked
from codebase.system.errors import BusyError, UserError
from codebase.system.files import write_table

COLUMNS = ("step", "images", "NELBO", "KL", "REC", "seconds")
TRAIN = "train"  # beside TEST and ALL_TEST: what a row's bounds are of


class Row(NamedTuple):
    """Bounds in nats per image, and what they are of.

    Args:
        step: training steps of the model.
        images: TRAIN, averaged over the steps since the last such row; TEST or ALL_TEST.
        seconds: of training, up to the step; None where they are not known.
    """

    step: int
    images: str
    bounds: Bounds
    seconds: float | None


def metrics_path(folder: Path) -> Path:
    """The file that holds the bounds of the run in that folder."""
    return folder / "metrics.csv"


def read_metrics(folder: Path) -> list[Row]:
    """The rows of a run's metrics.csv; none without the file.

    Raises:
        UserError: the file is damaged.
    """
    path = metrics_path(folder)
    try:
        with open(path, newline="") as file:
            return [_row(**cells) for cells in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (csv.Error, TypeError, ValueError):
        raise UserError(f"{path} is damaged; delete it to go on without it") from None


def _row(step: str, images: str, NELBO: str, KL: str, REC: str, seconds: str = "") -> Row:
    # Files of older versions have no seconds.
    bounds = Bounds(float(NELBO), float(KL), float(REC))
    return Row(int(step), images, bounds, float(seconds) if seconds else None)


def write_metrics(folder: Path, rows: Iterable[Row]) -> None:
    """Write the rows of a run.

    Raises:
        OSError: the file cannot be written; one that was there before is as it was.
    """
    lines = ((row.step, row.images, *row.bounds, row.seconds) for row in rows)
    write_table(metrics_path(folder), [COLUMNS, *lines])


def bounds_after(folder: Path, step: int) -> dict[str, Row]:
    """The rows on TEST and ALL_TEST images after that step, by these names; none if one lacks."""
    rows = {row.images: row for row in read_metrics(folder) if row.step == step}
    return {name: rows[name] for name in (TEST, ALL_TEST)} if {TEST, ALL_TEST} <= {*rows} else {}


def record(folder: Path, step: int, measured: dict[str, Bounds]) -> None:
    """Put bounds that were measured on test images into the file, in place of older ones.

    A folder that another process trains in, or that cannot be written, is left as it is.
    """
    with suppress(BusyError, OSError), locked(folder):
        rows = read_metrics(folder)
        seconds = {row.images: row.seconds for row in rows if row.step == step}
        rows = [row for row in rows if row.step != step or row.images not in measured]
        rows += [Row(step, name, x, seconds.get(name)) for name, x in measured.items()]
        write_metrics(folder, sorted(rows, key=lambda row: row.step))
