"""Pictures of the bounds of runs: against the steps of a training, and against z."""

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from codebase import checkpoint
from codebase.drawing import finish, new_figure, plain_axes
from codebase.errors import DataError
from codebase.settings import Settings

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("NELBO", "KL(q(z | x) || p(z))", "REC, -log p(x | z)")
# What metrics.csv calls the images that the bounds are of, and how they are drawn.
TRAIN = {"label": "training, mean of 100 steps", "color": "0.6", "linewidth": 1}
ALL_TEST = {"label": "all test images", "color": "C0", "linewidth": 1, "marker": "s"}
TEST = {"label": "100 test images", "color": "C3", "linewidth": 1, "marker": "o"}
STYLES = {"train": TRAIN, "all test": ALL_TEST, "test": TEST}  # the last one on top


def read_metrics(path: str | Path) -> list[tuple]:
    """The rows (step, images, NELBO, KL, REC) of a run's metrics.csv.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with open(path, newline="") as file:
            rows = [[row[name] for name in checkpoint.METRICS] for row in csv.DictReader(file)]
        return [(int(step), images, *map(float, bounds)) for step, images, *bounds in rows]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise DataError(f"{path} is damaged; delete it to go without a learning curve") from None


def finished_runs(settings: Settings) -> list[tuple]:
    """The bounds (z, images, NELBO, KL, REC) of all runs here that differ in z or number only.

    Raises:
        DataError: a metrics.csv is damaged.
    """
    name = re.escape(settings._replace(z=0, run=0).name)
    name = name.replace("z=00", r"z=(\d+)").replace("run=0000", r"run=\d+")
    rows = []
    for path in checkpoint.CHECKPOINTS.glob("*/metrics.csv"):
        if match := re.fullmatch(name, path.parent.name):
            for step, images, *bounds in read_metrics(path):
                if step == settings.iter_max and images != "train":
                    rows.append((int(match[1]), images, *bounds))
    return rows


def learning_curve(
    metrics: str | Path, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """NELBO, KL and REC against training steps, from a run's metrics.csv.

    Above the whole run; below its last three quarters, on axes that show a difference of a nat.

    Raises:
        DataError: the file is damaged.
    """
    rows = read_metrics(metrics)
    quarter = max((step for step, *_ in rows), default=0) / 4
    figure, panels = new_figure(5, 2, 3)
    for images, style in STYLES.items():
        if chosen := [row for row in rows if row[1] == images]:
            _plot(panels[0], chosen, style)
            _plot(panels[1], [row for row in chosen if row[0] >= quarter], style)
    for axes in panels[0]:
        axes.set_xscale("log")
    _name_axes(panels[0], PANELS, "training steps")
    _name_axes(panels[1], [""] * 3, "steps, the last three quarters")
    return _finish(figure, f"Learning curve: {title or Path(metrics).parent.name}", save_path)


def bounds_against_z(
    rows: Iterable[tuple], title: str, save_path: str | Path | None = None
) -> "Figure":
    """NELBO, KL and REC of runs at their end against z: a point for each run, a line of means.

    Args:
        rows: (z, images, NELBO, KL, REC), images "test" or "all test" as in metrics.csv.
    """
    rows = sorted(rows)
    figure, panels = new_figure(3, 1, 3)
    for images in ("all test", "test"):
        chosen = [row for row in rows if row[1] == images]
        means = []
        for z, runs in groupby(chosen, key=itemgetter(0)):
            means.append((z, images, *map(fmean, list(zip(*runs, strict=True))[2:])))
        _plot(panels, means, STYLES[images] | {"marker": "", "label": None})
        _plot(panels, chosen, STYLES[images] | {"linestyle": ""})
        if images == "test":
            _write_numbers(panels, means)
    dimensions = sorted({z for z, *_ in rows})
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(dimensions, dimensions)
        axes.minorticks_off()
        axes.margins(0.1)
    _name_axes(panels, PANELS, "z, latent dimensions")
    return _finish(figure, f"Bounds against z: {title}", save_path)


def _plot(panels: "Sequence[Axes]", rows: Sequence[tuple], style: dict[str, Any]) -> None:
    """Draw the bounds of rows (x, images, NELBO, KL, REC), each bound in its panel."""
    for column, axes in enumerate(panels, start=2):
        axes.plot([row[0] for row in rows], [row[column] for row in rows], markersize=4, **style)


def _write_numbers(panels: "Sequence[Axes]", rows: Sequence[tuple]) -> None:
    """Write the bounds of rows (x, images, NELBO, KL, REC) beside their points."""
    # NELBO and REC fall along x and KL rises: above and below, the lines leave room.
    for column, (axes, y) in enumerate(zip(panels, (5, -9, 5), strict=True), start=2):
        for row in rows:
            place = {"xytext": (4, y), "textcoords": "offset points"}
            style = {"fontsize": 7, "color": STYLES[row[1]]["color"]}
            axes.annotate(f"{row[column]:.1f}", (row[0], row[column]), **place, **style)


def _name_axes(panels: "Sequence[Axes]", titles: Sequence[str], x: str) -> None:
    for axes, title in zip(panels, titles, strict=True):
        plain_axes(axes, title, x, "nats per image" if axes is panels[0] else "")


def _finish(figure: "Figure", title: str, save_path: str | Path | None) -> "Figure":
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return finish(figure, title, save_path)
