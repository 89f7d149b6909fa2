"""Pictures of what a model has learned. Every function returns the figure, or saves it as well."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from codebase import checkpoint
from codebase.curves import bounds_against_z, finished_runs, learning_curve
from codebase.data import Images, subset_rows
from codebase.drawing import (
    FONT,
    finish,
    label_rows,
    new_figure,
    show_grid,
    tick_columns,
)
from codebase.evaluate import SEED, subset_images
from codebase.latent import latent_space
from codebase.models.vae import VAE
from codebase.seeds import seeded
from codebase.settings import Settings

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


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
        OSError: the file cannot be written.
    """
    rows, columns = grid_size
    if not 0 < num_samples <= rows * columns:
        raise ValueError(f"{num_samples} samples do not fit into a grid of {rows} x {columns}")
    x = model.sample_x(num_samples)
    figure, axes = new_figure(8 * rows / columns + 0.4, shown=save_path is None)
    show_grid(axes, x, rows, columns)
    finish(figure, f"Samples x ~ p(x | z), z ~ p(z): {title or model.name}", save_path)
    if save_path is None:
        import matplotlib.pyplot as plt

        plt.show()


def reconstructions(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """A test image of each digit, its binarized input, and the mean of p(x | z) at z = E[z | x]."""
    figure = _draw_reconstructions({"reconstruction": model}, images)
    return finish(figure, f"Reconstructions: {title or model.name}", save_path)


def progress(
    models: Mapping[int, VAE], images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """The reconstructions of the same images after some numbers of training steps, a row for each.

    Args:
        models: one run's model after each number of steps.
    """
    rows = {f"{step} steps": model for step, model in sorted(models.items())}
    figure = _draw_reconstructions(rows, images)
    return finish(figure, f"Progress: {title or next(iter(models.values())).name}", save_path)


@torch.no_grad()
def _draw_reconstructions(models: Mapping[str, VAE], images: Images) -> "Figure":
    """The images, the binarized inputs, and a row of reconstructions for each model."""
    x = subset_images(images)[::10]
    rows = [images.test[subset_rows(images.test_labels)[::10]] / 255, x]
    for model in models.values():
        m, _ = model.enc.encode(x.to(model.z_prior_m.device))
        rows.append(model.compute_sigmoid_given(m).cpu())
    figure, axes = new_figure(0.7 * len(rows) + 0.4)
    show_grid(axes, torch.cat(rows), len(rows), 10)
    label_rows(axes, ["image", "binarized input", *models])
    return figure


@torch.no_grad()
def interpolation(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """Ten steps between the posterior means of two test images of different digits, five times."""
    x = subset_images(images)[::10].to(model.z_prior_m.device)
    m, _ = model.enc.encode(x)
    steps = torch.linspace(0, 1, 10).to(m).view(1, 10, 1)
    path = torch.lerp(m[0::2, None], m[1::2, None], steps)
    means = model.compute_sigmoid_given(path.flatten(0, 1)).unflatten(0, (5, 10))
    rows = torch.cat([x[0::2, None], means, x[1::2, None]], 1)
    figure, axes = new_figure(3.6)
    show_grid(axes, rows.flatten(0, 1), 5, 12)
    tick_columns(axes, {0: "input", 1: "0", 10: "1", 11: "input"})
    axes.set_xlabel("share of the way between the posterior means", **FONT)
    return finish(figure, f"Interpolation: {title or model.name}", save_path)


@torch.no_grad()
def samples_and_means(model: VAE, title: str = "", save_path: str | Path | None = None) -> "Figure":
    """A hundred latents of the prior, as decoder means and as Bernoulli draws from them."""
    mean = model.sample_sigmoid(100)
    figure, panels = new_figure(4.3, 1, 2)
    for axes, x, name in zip(
        panels,
        (mean, torch.bernoulli(mean)),
        ("decoder means E[x | z]", "draws x ~ p(x | z) of the same z"),
        strict=True,
    ):
        show_grid(axes, x, 10, 10)
        axes.set_title(name, **FONT)
    return finish(figure, f"Samples: {title or model.name}", save_path)


def write_all(model: VAE, images: Images, settings: Settings) -> list[Path]:
    """Write every picture into the run's folder and return the files.

    What needs metrics.csv, earlier models of the run or runs of another z is left out without.

    Raises:
        CheckpointError, DataError: an earlier model or a metrics.csv is damaged.
        OSError: a file cannot be written.
    """
    folder, title, paths = checkpoint.run_folder(settings), settings.title, []

    def new(name: str) -> Path:
        """The file for one more picture."""
        paths.append(folder / name)
        return paths[-1]

    if checkpoint.metrics_path(folder).exists():
        learning_curve(checkpoint.metrics_path(folder), title, new("learning_curve.png"))
    reconstructions(model, images, title, new("reconstructions.png"))
    if len(models := _earlier_models(model, settings)) > 1:
        progress(models, images, title, new("progress.png"))
    latent_space(model, images, title, new("latent_space.png"))
    interpolation(model, images, title, new("interpolation.png"))
    with seeded(SEED, model.z_prior_m.device):  # whatever was drawn before
        samples_and_means(model, title, new("samples.png"))
    rows = finished_runs(settings)
    if len({z for z, *_ in rows}) > 1:
        any_z = f"{settings.iter_max} steps, {settings.dataset}"
        bounds_against_z(rows, any_z, new("bounds_against_z.png"))
    return paths


def _earlier_models(model: VAE, settings: Settings) -> dict[int, VAE]:
    """The run's models by their steps: few enough to be drawn, and the last one."""
    folder, models, last = checkpoint.run_folder(settings), {}, 0
    for step in checkpoint.saved_steps(folder):
        if 5 * last <= step < settings.iter_max:
            models[step] = copy.deepcopy(model)
            checkpoint.load_model(models[step], checkpoint.model_path(folder, step))
            last = step
    return models | {settings.iter_max: model}
