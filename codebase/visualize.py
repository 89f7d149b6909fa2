"""A picture of two hundred samples from a model."""

from pathlib import Path

import torch  # noqa: F401  # a solution of this task usually needs it

from codebase.evaluate import evaluation_mode
from codebase.models.vae import VAE
from codebase.pictures.drawing import new_figure, put_title, show_grid, write_figure


def visualize_samples(
    model: VAE,
    num_samples: int = 200,
    grid_size: tuple[int, int] = (10, 20),
    save_path: str | Path | None = None,
    title: str | None = None,
) -> None:
    """Sample z from the prior and x from p(x | z), and show the samples x in a grid.

    Args:
        num_samples: at most rows * columns.
        grid_size: rows and columns.
        save_path: a .png, .pdf or .svg file to write; without it, the figure is shown.
        title: a name for the model in the picture's title, by default `model.name`.

    Raises:
        ValueError: the samples do not fit into the grid, or the file has another ending.
    """
    rows, columns = grid_size
    if not 0 < num_samples <= rows * columns:
        raise ValueError(f"{num_samples} samples do not fit into a grid of {rows} x {columns}")
    with evaluation_mode(model):
        x = model.sample_x(num_samples)
    figure, axes = new_figure(8 * rows / columns + 0.4, shown=save_path is None)
    show_grid(axes, x, rows, columns)
    put_title(figure, f"Samples from p(x): {title or model.name}")
    if save_path is None:
        from matplotlib import pyplot

        pyplot.show()
    else:
        write_figure(figure, save_path)
