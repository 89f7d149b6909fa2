"""All pictures of a run but that of its samples: each is a figure, or None of nothing to draw."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from codebase.data import Images, subset_rows
from codebase.evaluate import device_of, subset_images
from codebase.models.vae import VAE
from codebase.pictures import curves, drawing, latent
from codebase.runs.checkpoint import load_model
from codebase.runs.folder import model_path, run_folder, saved_steps
from codebase.runs.metrics import read_metrics
from codebase.settings import Settings
from codebase.system.errors import told

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


def write_all(model: VAE, images: Images, settings: Settings, failures: list[str]) -> None:
    """Write every picture into the run's folder and say where.

    Args:
        failures: gets the sentence of each picture that cannot be drawn or written.
    """
    folder = run_folder(settings)
    titles = {"Bounds against z": f"{settings.iter_max} steps, {settings.dataset}"}
    needs = {
        "Learning curve": "rows in metrics.csv",
        "Progress": "an earlier checkpoint, as with a smaller --iter_save",
        "Latent space": "a --z of 2 or more",
        "Bounds against z": "runs of another --z beside this one",
    }
    pictures = {
        "Learning curve": lambda: curves.learning_curve(read_metrics(folder)),
        "Reconstructions": lambda: reconstructions({"reconstruction": model}, images),
        "Progress": lambda: progress(model, images, settings),
        "Latent space": lambda: latent.latent_space(model, images),
        "Interpolation": lambda: interpolation(model, images),
        "Bounds against z": lambda: curves.bounds_against_z(settings),
    }
    for name, draw in pictures.items():
        with told(failures):
            path = folder / f"{name.lower().replace(' ', '_')}.png"
            if figure := draw():
                drawing.put_title(figure, f"{name}: {titles.get(name, settings.title)}")
                drawing.write_figure(figure, path)
                print(f"Visualization saved at {path}")
            else:
                print(f"No {path.name}: it needs {needs[name]}")


@torch.no_grad()
def reconstructions(models: Mapping[str, VAE], images: Images) -> "Figure":
    """A test image of each digit, its binarized input, and a row for each model, by its label.

    A row has the means of p(x | z) at z = E[z | x].
    """
    x = subset_images(images)[::10]
    rows = [images.test[subset_rows(images.test_labels)[::10]] / 255, x]
    for model in models.values():
        m, _ = model.enc.encode(x.to(device_of(model)))
        rows.append(model.compute_sigmoid_given(m).cpu())
    figure, axes = drawing.new_figure(0.7 * len(rows) + 0.4)
    drawing.show_grid(axes, torch.cat(rows), len(rows), 10)
    drawing.label_cells(axes, ["image", "binarized input", *models])
    return figure


def progress(model: VAE, images: Images, settings: Settings) -> "Figure | None":
    """Reconstructions by the run's earlier models, few enough to be drawn, and by the last one."""
    folder, models, last = run_folder(settings), {}, 0
    for step in saved_steps(folder):
        if 5 * last <= step < settings.iter_max:
            models[f"{step} steps"] = earlier = copy.deepcopy(model)
            load_model(earlier, model_path(folder, step))
            last = step
    last_one = {f"{settings.iter_max} steps": model}
    return reconstructions(models | last_one, images) if models else None


@torch.no_grad()
def interpolation(model: VAE, images: Images) -> "Figure":
    """Ten steps between the posterior means of two test images of different digits, five times."""
    x = subset_images(images)[::10].to(device_of(model))
    m, _ = model.enc.encode(x)
    steps = torch.linspace(0, 1, 10).to(m).view(1, 10, 1)
    path = torch.lerp(m[0::2, None], m[1::2, None], steps)
    means = model.compute_sigmoid_given(path.flatten(0, 1)).unflatten(0, (5, 10))
    rows = torch.cat([x[0::2, None], means, x[1::2, None]], 1)
    figure, axes = drawing.new_figure(3.6)
    drawing.show_grid(axes, rows.flatten(0, 1), 5, 12)
    drawing.label_cells(axes, columns={0: "input", 1: "0", 10: "1", 11: "input"})
    axes.set_xlabel("share of the way between the posterior means", **drawing.FONT)
    return figure
