"""Pictures of what the model has learned."""

from pathlib import Path

import torch
from torch import Tensor

from codebase.models.vae import VAE

GAP = 2  # empty pixels between images
DPI = 200
PIXELS_PER_PIXEL = 2  # whole, so that every pixel of an image comes out equally large


def image_grid(images: Tensor, rows: int, columns: int) -> Tensor:
    """Arrange images (n, 784) row by row in one picture; places beyond the n-th stay empty.

    Returns:
        (rows * (28 + GAP), columns * (28 + GAP)), 0 where there is no image.
    """
    cells = images.new_zeros(rows * columns, 28 + GAP, 28 + GAP)
    cells[: len(images), :28, :28] = images.view(-1, 28, 28)
    return cells.view(rows, columns, 28 + GAP, 28 + GAP).transpose(1, 2).flatten(0, 1).flatten(1)


@torch.no_grad()
def visualize_samples(
    model: VAE,
    num_samples: int = 200,
    grid_size: tuple[int, int] = (10, 20),
    save_path: str | Path | None = None,
) -> None:
    """Draw z from the prior and x from p(x | z), and show the x as a grid of images.

    Args:
        num_samples: how many, at most rows * columns.
        grid_size: rows and columns.
        save_path: the PNG file to write; without one the figure is shown.

    Raises:
        ValueError: the samples do not fit into the grid.
        OSError: the file cannot be written.
    """
    # Slow to import. pyplot, which needs a screen to be useful, only where something is shown.
    from matplotlib.figure import Figure

    rows, columns = grid_size
    if not 0 < num_samples <= rows * columns:
        raise ValueError(f"{num_samples} samples do not fit into a grid of {rows} x {columns}")
    grid = image_grid(model.sample_x(num_samples).cpu(), rows, columns).numpy()

    if save_path is None:
        import matplotlib.pyplot as plt

        new_figure = plt.figure
    else:
        new_figure = Figure
    # One image for the whole grid: two hundred axes would take seconds.
    height, width = (PIXELS_PER_PIXEL * size / DPI for size in grid.shape)
    title = 0.3
    figure = new_figure(figsize=(width, height + title), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, height / (height + title)))
    axes.imshow(grid, cmap="gray_r", interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.set_title(f"{model.name}: {num_samples} samples x ~ p(x | z), z ~ p(z)", fontsize=8)
    if save_path is None:
        plt.show()
    else:
        figure.savefig(save_path, format="png")
