"""All pictures of a run but that of its samples. Every function returns its figure.

What there is nothing to draw of gives None.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from codebase.data import Images, subset_rows
from codebase.evaluate import SEED, device_of, subset_images
from codebase.models.vae import VAE
from codebase.pictures.curves import bounds_against_z, learning_curve
from codebase.pictures.drawing import (
    FONT,
    finish,
    label_rows,
    new_figure,
    show_grid,
    tick_columns,
)
from codebase.pictures.latent import latent_space
from codebase.runs.checkpoint import load_model
from codebase.runs.folder import model_path, run_folder, saved_steps
from codebase.runs.metrics import read_metrics
from codebase.settings import Settings
from codebase.system.errors import told
from codebase.system.seeds import seeded

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


def reconstructions(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """A test image of each digit, its binarized input, and the mean of p(x | z) at z = E[z | x]."""
    figure = _draw_reconstructions({"reconstruction": model}, images)
    return finish(figure, f"Reconstructions: {title or model.name}", save_path)


def progress(
    models: Mapping[int, VAE], images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure | None":
    """The reconstructions of the same images after some numbers of training steps, a row for each.

    Args:
        models: one run's model after each number of steps; at least two.
    """
    if len(models) < 2:
        return None
    rows = {f"{step} steps": model for step, model in sorted(models.items())}
    figure = _draw_reconstructions(rows, images)
    return finish(figure, f"Progress: {title or next(iter(models.values())).name}", save_path)


@torch.no_grad()
def _draw_reconstructions(models: Mapping[str, VAE], images: Images) -> "Figure":
    """The images, the binarized inputs, and a row of reconstructions for each model."""
    x = subset_images(images)[::10]
    rows = [images.test[subset_rows(images.test_labels)[::10]] / 255, x]
    for model in models.values():
        m, _ = model.enc.encode(x.to(device_of(model)))
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
    x = subset_images(images)[::10].to(device_of(model))
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


def write_all(model: VAE, images: Images, settings: Settings, failures: list[str]) -> None:
    """Write every picture into the run's folder and say where.

    What needs earlier models of the run, or runs of another z, is left out without.

    Args:
        failures: gets the sentence of each picture that cannot be drawn or written.
    """
    folder, any_z = run_folder(settings), f"{settings.iter_max} steps, {settings.dataset}"
    pictures = {
        "learning_curve": lambda *where: learning_curve(read_metrics(folder), *where),
        "reconstructions": lambda *where: reconstructions(model, images, *where),
        "progress": lambda *where: progress(_earlier_models(model, settings), images, *where),
        "latent_space": lambda *where: latent_space(model, images, *where),
        "interpolation": lambda *where: interpolation(model, images, *where),
        "samples": lambda *where: samples_and_means(model, *where),
        "bounds_against_z": lambda _, path: bounds_against_z(settings, any_z, path),
    }
    for name, draw in pictures.items():
        # Seeded anew, so that none depends on what was drawn before.
        with told(failures), seeded(SEED, device_of(model)):
            if draw(settings.title, folder / f"{name}.png"):
                print(f"Visualization saved at {folder / name}.png")


def _earlier_models(model: VAE, settings: Settings) -> dict[int, VAE]:
    """The run's models by their steps: few enough to be drawn, and the last one."""
    folder, models, last = run_folder(settings), {}, 0
    for step in saved_steps(folder):
        if 5 * last <= step < settings.iter_max:
            models[step] = copy.deepcopy(model)
            load_model(models[step], model_path(folder, step))
            last = step
    return models | {settings.iter_max: model}
