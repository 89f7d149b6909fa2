"""Figures: grids of images, scatter plots, axes, titles and files."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from codebase.system.files import write_atomically

WIDTH = 8  # inches
DPI = 200  # dots per inch in files; half as many in a notebook
GAP = 2  # empty pixels between the images of a grid
CELL = 28 + GAP
# Colour-blind readers can tell these colours apart. Source: Petroff 2021, arXiv:2107.02270.
COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)


def new_figure(
    height: float, rows: int = 1, columns: int = 1, shown: bool = False, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure of `height` inches and its axes, like `matplotlib.pyplot.subplots`.

    Args:
        options: of `Figure.subplots`.
    """
    if shown:  # only such a figure needs pyplot, and a screen
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(WIDTH, height), dpi=DPI / 2, layout="constrained")
    else:
        figure = Figure(figsize=(WIDTH, height), dpi=DPI / 2, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def image_grid(images: Tensor, rows: int, columns: int) -> Tensor:
    """Arrange images (n, 784) row by row in one picture; cells after the n-th stay 0."""
    cells = images.new_zeros(rows * columns, CELL, CELL)
    cells[: len(images), :28, :28] = images.view(-1, 28, 28)
    picture = cells.view(rows, columns, CELL, CELL).transpose(1, 2).flatten(0, 1).flatten(1)
    return picture[:-GAP, :-GAP]


def show_grid(
    axes: Axes, images: Tensor, rows: int, columns: int, limit: float | None = None
) -> None:
    """Show a grid of images (n, 784) as one picture; axes for each image would take seconds.

    Args:
        limit: places a square grid on axes from -limit to limit; without it there are no axes.
    """
    picture = image_grid(images, rows, columns).cpu().numpy()
    shown = axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="antialiased")
    if limit is None:
        axes.set(xticks=[], yticks=[], frame_on=False)
    else:
        # The picture lacks the outer half of the gaps around its outer images.
        edge = limit * (1 - GAP / (CELL * columns))
        shown.set_extent((-edge, edge, -edge, edge))
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))


def label_cells(axes: Axes, rows: Sequence[str] = (), columns: Mapping[int, str] = {}) -> None:
    """Label the rows of a grid from the top, and its columns by their number."""
    axes.set_yticks([i * CELL + 14 for i in range(len(rows))], rows)
    axes.set_xticks([i * CELL + 14 for i in columns], columns.values())
    axes.tick_params(length=0, labelsize=8)


def name_axes(axes: Axes, title: str, x: str, y: str = "") -> None:
    """Write a title above the axes and the names of x and y, and keep two sides of the frame."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(which="both", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def scatter_points(axes: Axes, points: Tensor, labels: Tensor) -> None:
    """Plot points (n, 2) in the colours of their labels (n,), with one scale for both axes.

    There are ten colours, so further labels repeat them. Without labels, (0,), all have one colour.
    """
    # A single call keeps the order of the data set, so that no label hides the others.
    x, y = points.T
    axes.set_aspect("equal")
    if not len(labels):
        axes.scatter(x, y, 2, COLOURS[0], linewidths=0)
        return
    colours = ListedColormap(COLOURS)
    dots = axes.scatter(x, y, 2, labels % 10, cmap=colours, vmin=0, vmax=9, linewidths=0)
    classes = labels.unique().tolist()
    handles, _ = dots.legend_elements(num=[label % 10 for label in classes])
    axes.legend(
        handles,
        [str(label) for label in classes],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=1 + len(classes) // 25,
        frameon=False,
        fontsize=8,
    )


def put_title(figure: Figure, title: str) -> None:
    """Write a title above the figure, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(title, 90), fontsize=10)


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure atomically, in the format of the path's ending (ValueError if unknown)."""
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:], dpi=DPI)
    write_atomically(Path(path), picture.getvalue())
