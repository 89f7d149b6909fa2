"""A run's numbers: the rows of metrics.csv, which are all that tables and curves read."""

import csv
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from codebase.evaluate import ALL_TEST, TEST, Bounds
from codebase.runs.folder import locked
from codebase.system.errors import BusyError, UserError
from codebase.system.files import write_table

METRICS = "metrics.csv"  # in the folder of a run
COLUMNS = ("step", "images", "NELBO", "KL", "REC", "seconds")
# Of a run at its end, as tables name them.
VALUES = ("NELBO", "KL", "REC", "NELBO, all test images", "seconds")
TRAIN = "train"  # beside TEST and ALL_TEST: the batches since the last such row


class Row(NamedTuple):
    """The bounds of a model in nats per image.

    Args:
        step: training steps of the model.
        images: what the bounds are of: TRAIN, TEST or ALL_TEST.
        seconds: of training, up to the step; nan where they are not known.
    """

    step: int
    images: str
    nelbo: float
    kl: float
    rec: float
    seconds: float = math.nan

    @property
    def bounds(self) -> Bounds:
        """NELBO, KL and REC."""
        return Bounds(self.nelbo, self.kl, self.rec)


def read_metrics(folder: Path) -> list[Row]:
    """The rows of the run in that folder; none without the file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with open(folder / METRICS, newline="") as file:
            _, *lines = csv.reader(file)
        return [Row(int(step), images, *map(float, rest)) for step, images, *rest in lines]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (csv.Error, TypeError, ValueError):
        raise UserError(f"{folder / METRICS} is damaged; delete it to go on without it") from None


def write_metrics(folder: Path, rows: Iterable[Row]) -> None:
    """Write the rows of the run in that folder, whole or not at all."""
    write_table(folder / METRICS, [COLUMNS, *rows])


def bounds_after(folder: Path, step: int) -> dict[str, Row]:
    """The rows on TEST and ALL_TEST images after that step, by these names; none if one lacks."""
    rows = {row.images: row for row in read_metrics(folder) if row.step == step}
    return {name: rows[name] for name in (TEST, ALL_TEST)} if {TEST, ALL_TEST} <= {*rows} else {}


def last_bounds(folder: Path) -> dict[str, Row]:
    """The last rows on TEST and ALL_TEST images, by these names; none where there are none."""
    rows = {(row.step, row.images): row for row in read_metrics(folder)}
    both = [step for step, images in rows if images == TEST and (step, ALL_TEST) in rows]
    return {name: rows[max(both), name] for name in (TEST, ALL_TEST)} if both else {}


def values(rows: dict[str, Row]) -> list[float]:
    """The numbers called VALUES, from the rows on TEST and ALL_TEST images."""
    return [*rows[TEST].bounds, rows[ALL_TEST].nelbo, rows[TEST].seconds]


def write_bounds(folder: Path, step: int, measured: dict[str, Bounds]) -> None:
    """Put bounds that were measured on test images into the file, in place of older ones.

    A folder that another process trains in, or that cannot be written, is left as it is.
    """
    with suppress(BusyError, OSError), locked(folder):
        rows = {(row.step, row.images): row for row in read_metrics(folder)}
        for images, bounds in measured.items():
            earlier = rows.get((step, images))
            seconds = earlier.seconds if earlier else math.nan
            rows[step, images] = Row(step, images, *bounds, seconds)
        write_metrics(folder, sorted(rows.values(), key=lambda row: row.step))
