"""Two hundred samples of a model, as a picture."""

from pathlib import Path

import torch

from codebase.models.vae import VAE
from codebase.pictures.drawing import new_figure, put_title, show_grid, write_figure


@torch.no_grad()
def visualize_samples(
    model: VAE,
    num_samples: int = 200,
    grid_size: tuple[int, int] = (10, 20),
    save_path: str | Path | None = None,
    title: str | None = None,
) -> None:
    """Draw z from the prior and x from p(x | z), and show the x as a grid of images.

    Args:
        num_samples: how many, at most rows * columns.
        grid_size: rows and columns.
        save_path: the .png, .pdf or .svg file to write; without one the figure is shown.
        title: what is written above, the model's name by default.

    Raises:
        ValueError: the samples do not fit into the grid, or the file has another ending.
    """
    rows, columns = grid_size
    if not 0 < num_samples <= rows * columns:
        raise ValueError(f"{num_samples} samples do not fit into a grid of {rows} x {columns}")
    x = model.sample_x(num_samples)
    figure, axes = new_figure(8 * rows / columns + 0.4, shown=save_path is None)
    show_grid(axes, x, rows, columns)
    put_title(figure, f"Samples x ~ p(x | z), z ~ p(z): {title or model.name}")
    if save_path is not None:
        write_figure(figure, save_path)
    else:
        import matplotlib.pyplot as plt

        plt.show()
