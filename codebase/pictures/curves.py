"""Pictures of the bounds of runs: against the steps of a training, and against z."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from codebase.evaluate import ALL_TEST, TEST, Bounds
from codebase.pictures.drawing import new_figure, plain_axes
from codebase.runs.metrics import TRAIN, Row, bounds_after
from codebase.runs.record import all_runs
from codebase.settings import Settings

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("NELBO", "KL(q(z | x) || p(z))", "REC, -log p(x | z)")
# How bounds are drawn, by the images they are of; the last ones on top.
STYLES: dict[str, dict[str, Any]] = {
    TRAIN: {"label": "training, mean of 100 steps", "color": "0.6", "linewidth": 1},
    ALL_TEST: {"label": "all test images", "color": "C0", "linewidth": 1, "marker": "s"},
    TEST: {"label": "100 test images", "color": "C3", "linewidth": 1, "marker": "o"},
}
Points = Sequence[tuple[int, Bounds]]  # places on the horizontal axis, and the bounds there


def learning_curve(rows: Sequence[Row]) -> "Figure | None":
    """NELBO, KL and REC against training steps, from the rows of a run; None if there are none.

    Above the whole run; below its last three quarters, on axes that show a difference of a nat.
    """
    if not rows:
        return None
    quarter = max(row.step for row in rows) / 4
    figure, panels = new_figure(5, 2, 3)
    for images, style in STYLES.items():
        if points := [(row.step, row.bounds) for row in rows if row.images == images]:
            _plot(panels[0], points, style)
            _plot(panels[1], [point for point in points if point[0] >= quarter], style)
    for axes in panels[0]:
        axes.set_xscale("log")
    _name_axes(panels[0], PANELS, "training steps")
    _name_axes(panels[1], [""] * 3, "steps, the last three quarters")
    _add_legend(figure)
    return figure


def bounds_against_z(settings: Settings) -> "Figure | None":
    """NELBO, KL and REC at their end of all runs that differ in z or number only.

    A point for each run, and a line of means; None if all runs have one z.

    Raises:
        UserError: a metrics.csv is damaged.
    """
    runs = [
        (other.z, rows)
        for folder, other in all_runs()
        if other._replace(z=settings.z, run=settings.run).name == settings.name
        and (rows := bounds_after(folder, settings.iter_max))
    ]
    dimensions = sorted({z for z, _ in runs})
    if len(dimensions) < 2:
        return None
    figure, panels = new_figure(3, 1, 3)
    for images in (ALL_TEST, TEST):
        points = [(z, rows[images].bounds) for z, rows in runs]
        means = [(z, _mean([x for at, x in points if at == z])) for z in dimensions]
        _plot(panels, means, STYLES[images] | {"marker": "", "label": None})
        _plot(panels, points, STYLES[images] | {"linestyle": ""})
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(dimensions, dimensions)
        axes.minorticks_off()
        axes.margins(0.1)
    _name_axes(panels, PANELS, "z, latent dimensions")
    _add_legend(figure)
    return figure


def _mean(bounds: Sequence[Bounds]) -> Bounds:
    return Bounds(*map(fmean, zip(*bounds, strict=True)))


def _plot(panels: "Sequence[Axes]", points: Points, style: dict[str, Any]) -> None:
    """Draw each of the bounds in its panel."""
    for number, axes in enumerate(panels):
        values = [bounds[number] for _, bounds in points]
        axes.plot([x for x, _ in points], values, markersize=4, **style)


def _name_axes(panels: "Sequence[Axes]", titles: Sequence[str], x: str) -> None:
    for axes, title in zip(panels, titles, strict=True):
        plain_axes(axes, title, x, "nats per image" if axes is panels[0] else "")


def _add_legend(figure: "Figure") -> None:
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
