"""How pictures are drawn: the look of a figure, grids of images, points by digit, and files."""

import io
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codebase.system.files import write_atomically

if TYPE_CHECKING:  # slow to import, hence inside the functions
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

WIDTH = 8  # of a figure, in inches
GAP = 2  # empty pixels between the images of a grid
CELL = 28 + GAP
INK = "gray_r"
FONT: dict[str, Any] = {"fontsize": 9}
DPI = 200  # of a file, which may be printed; a notebook shows half as many


def new_figure(
    height: float, rows: int = 1, columns: int = 1, shown: bool = False, **grid: Any
) -> tuple:
    """An empty figure of `height` inches and its axes, a grid as `subplots` makes them.

    Only one to be shown needs pyplot, and a screen.
    """
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    if shown:
        from matplotlib.pyplot import figure as make
    else:
        from matplotlib.figure import Figure as make  # type: ignore[assignment]  # either will do
    figure = make(figsize=(WIDTH, height), dpi=DPI / 2, layout="constrained")
    return figure, figure.subplots(rows, columns, **grid)


def _import_matplotlib() -> None:
    """Import matplotlib also where MPLBACKEND names what is not installed: a file needs no screen.

    Colab sets it for its own Python, and a virtual environment there inherits it.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def image_grid(images: "Tensor", rows: int, columns: int) -> "Tensor":
    """Arrange images (n, 784) row by row in one picture; places beyond the n-th stay empty.

    Returns:
        (rows * CELL - GAP, columns * CELL - GAP), 0 where there is no image.
    """
    cells = images.new_zeros(rows * columns, CELL, CELL)
    cells[: len(images), :28, :28] = images.view(-1, 28, 28)
    picture = cells.view(rows, columns, CELL, CELL).transpose(1, 2).flatten(0, 1).flatten(1)
    return picture[:-GAP, :-GAP]


def show_grid(
    axes: "Axes", images: "Tensor", rows: int, columns: int, reach: float | None = None
) -> None:
    """Draw a grid of images as one; an axes for each would take seconds.

    Args:
        reach: what the axes say: -reach at the left edge, reach at the right one, the same scale
            upwards, and 0 in the middle. Without it they say nothing.
    """
    picture = image_grid(images, rows, columns).cpu().numpy()
    drawn = axes.imshow(picture, cmap=INK, vmin=0, vmax=1, interpolation="antialiased")
    if reach is None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return
    up = reach * rows / columns
    # The picture ends half a gap before the cells of its outer images do.
    width, height = reach * (1 - GAP / CELL / columns), up * (1 - GAP / CELL / rows)
    drawn.set_extent((-width, width, -height, height))
    axes.set(xlim=(-reach, reach), ylim=(-up, up))


def label_cells(axes: "Axes", rows: Sequence[str] = (), columns: Mapping[int, str] = {}) -> None:
    """Write labels beside the rows of a grid, from the top, and below columns by their number."""
    axes.set_yticks([i * CELL + 14 for i in range(len(rows))], rows, fontsize=8)
    axes.set_xticks([i * CELL + 14 for i in columns], columns.values(), fontsize=8)
    axes.tick_params(length=0)


def plain_axes(axes: "Axes", title: str, x: str, y: str) -> None:
    """The look of axes with numbers: a title, names of both axes and no frame."""
    axes.set_title(title, **FONT)
    axes.set_xlabel(x, **FONT)
    axes.set_ylabel(y, **FONT)
    axes.tick_params(which="both", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def scatter_digits(axes: "Axes", points: "Tensor", digits: "Tensor") -> None:
    """Points (n, 2) in the colour of their digit, on axes of one scale."""
    # One scatter in the order of the file, so that no digit covers the others.
    style: dict[str, Any] = {"cmap": "tab10", "vmin": 0, "vmax": 9, "linewidths": 0, "s": 2}
    dots = axes.scatter(points[:, 0], points[:, 1], c=digits, rasterized=True, **style)
    axes.set_aspect("equal")
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "handletextpad": 0}
    legend = dots.legend_elements(num=list(range(10)), fmt="{x:.0f}")
    axes.legend(*legend, fontsize=8, frameon=False, **place)


def put_title(figure: "Figure", title: str) -> None:
    """Write a title above the figure, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(title, 90), fontsize=10)


def write_figure(figure: "Figure", path: str | Path) -> None:
    """Write the figure, whole or not at all, as what the path's ending says.

    Raises:
        ValueError: matplotlib writes no files with that ending.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:], dpi=DPI)
    write_atomically(Path(path), picture.getvalue())
