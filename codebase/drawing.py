"""How pictures are drawn: the look of a figure, grids of images, and points by digit."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codebase.files import write_atomically

if TYPE_CHECKING:  # slow to import, hence inside the functions
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 2  # empty pixels between the images of a grid
INK = "gray_r"
FONT = {"fontsize": 9}
DPI = 110


def image_grid(images: Tensor, rows: int, columns: int) -> Tensor:
    """Arrange images (n, 784) row by row in one picture; places beyond the n-th stay empty.

    Returns:
        (rows * (28 + GAP), columns * (28 + GAP)), 0 where there is no image.
    """
    cells = images.new_zeros(rows * columns, 28 + GAP, 28 + GAP)
    cells[: len(images), :28, :28] = images.view(-1, 28, 28)
    return cells.view(rows, columns, 28 + GAP, 28 + GAP).transpose(1, 2).flatten(0, 1).flatten(1)


def new_figure(width: float, height: float, columns: int = 1, shown: bool = False) -> tuple:
    """An empty figure in inches and its axes. Only one to be shown needs pyplot, and a screen."""
    if shown:
        from matplotlib.pyplot import figure as make
    else:
        from matplotlib.figure import Figure as make
    figure = make(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def show_grid(axes: "Axes", images: Tensor, rows: int, columns: int) -> None:
    """Draw a grid of images as one; an axes for each would take seconds."""
    grid = image_grid(images, rows, columns)[:-GAP, :-GAP].cpu().numpy()
    axes.imshow(grid, cmap=INK, vmin=0, vmax=1, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def label_rows(axes: "Axes", labels: Sequence[str]) -> None:
    """Write a label beside each row of a grid, from the top."""
    places = [i * (28 + GAP) + 14 for i in range(len(labels))]
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(length=0)


def tick_columns(axes: "Axes", labels: dict[int, str]) -> None:
    """Write labels below columns of a grid, by the number of the column from 0."""
    axes.set_xticks([i * (28 + GAP) + 14 for i in labels], labels.values(), fontsize=8)
    axes.tick_params(length=0)


def scatter_digits(axes: "Axes", points: Tensor, digits: Tensor, labels: Sequence[str]) -> None:
    """Points (n, 2) or (n, 1) in the colour of their digit."""
    if points.shape[1] == 1:
        points, labels = torch.cat([points, torch.zeros_like(points)], 1), [*labels, ""]
    # One scatter in the order of the file, so that no digit covers the others.
    dots = axes.scatter(*points.T, s=1, c=digits, cmap="tab10", vmin=0, vmax=9)
    axes.set_title(f"posterior means of {len(points)} test images, by digit", **FONT)
    axes.set_xlabel(labels[0], **FONT)
    axes.set_ylabel(labels[1], **FONT)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_aspect("equal", "datalim")
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(*dots.legend_elements(), fontsize=8, frameon=False, **place)


def finish(figure: "Figure", title: str, save_path: str | Path | None) -> "Figure":
    """Put the title above the figure, and write it as PNG if there is a path.

    Raises:
        OSError: the file cannot be written.
    """
    figure.suptitle(title, fontsize=10)
    if save_path is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_atomically(Path(save_path), picture.getvalue())
    return figure
