"""Pictures of what the model has learned. Every function returns the figure, or saves it as PNG."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from codebase.data import Images, report_rows
from codebase.drawing import (
    FONT,
    finish,
    label_rows,
    new_figure,
    scatter_digits,
    show_grid,
    tick_columns,
)
from codebase.errors import DataError
from codebase.evaluate import all_images, report_images
from codebase.models.vae import VAE
from codebase.utils import kl_normal

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

MOST_DIMENSIONS = 20  # rows of a traversal
COLUMNS = ("step", "NELBO", "KL", "REC")  # the numbers of metrics.csv


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
        save_path: the PNG file to write; without one the figure is shown.
        title: what is written above, the model's name by default.

    Raises:
        ValueError: the samples do not fit into the grid.
        OSError: the file cannot be written.
    """
    rows, columns = grid_size
    if not 0 < num_samples <= rows * columns:
        raise ValueError(f"{num_samples} samples do not fit into a grid of {rows} x {columns}")
    x = model.sample_x(num_samples)
    figure, axes = new_figure(8, 8 * rows / columns + 0.4, shown=save_path is None)
    show_grid(axes, x, rows, columns)
    finish(figure, f"Samples x ~ p(x | z), z ~ p(z): {title or model.name}", save_path)
    if save_path is None:
        import matplotlib.pyplot as plt

        plt.show()


def learning_curve(
    metrics: str | Path, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """Negative ELBO, KL and reconstruction against training steps, from a run's metrics.csv.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with open(metrics, newline="") as file:
            rows = list(csv.DictReader(file))
        points = [(row["images"], *(float(row[key]) for key in COLUMNS)) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise DataError(f"{metrics} is damaged; delete it to go without a learning curve") from None
    figure, panels = new_figure(8, 3, columns=3)
    names = ("NELBO", "KL(q(z | x) || p(z))", "REC, -log p(x | z)")
    for column, (axes, name) in enumerate(zip(panels, names, strict=True), start=2):
        for kind, label, style in [
            ("train", "training, mean of 100 steps", {"color": "0.6", "linewidth": 1}),
            ("test", "the report's test images", {"color": "C3", "marker": "o", "linestyle": ""}),
        ]:
            chosen = [point for point in points if point[0] == kind]
            axes.plot([p[1] for p in chosen], [p[column] for p in chosen], label=label, **style)
        axes.set_xscale("log")
        axes.set_title(name, **FONT)
        axes.set_xlabel("training steps", **FONT)
        axes.set_ylabel("nats per image", **FONT)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return finish(figure, f"Learning curve: {title or Path(metrics).parent.name}", save_path)


@torch.no_grad()
def reconstructions(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """A test image of each digit, its binarized input, and the mean of p(x | z) at z = E[z | x]."""
    rows = report_rows(images.test_labels)[::10]
    x = report_images(images)[::10].to(model.z_prior_m.device)
    mean = model.compute_sigmoid_given(model.enc.encode(x)[0])
    figure, axes = new_figure(8, 2.7)
    show_grid(axes, torch.cat([images.test[rows] / 255, x.cpu(), mean.cpu()]), 3, 10)
    label_rows(axes, ["image", "binarized input", "reconstruction"])
    return finish(figure, f"Reconstructions: {title or model.name}", save_path)


@torch.no_grad()
def latent_space(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """What each place of the latent space decodes to, and where the test images are in it.

    With two latent dimensions, the decoder's means over the plane at the normal quantiles; with
    others, a traversal of each dimension from -3 to 3 with the others at 0, ordered by their KL.
    """
    x = all_images(images).to(model.z_prior_m.device)
    m, v = model.enc.encode(x)
    figure, (left, right) = new_figure(10, 5, columns=2)
    if model.z_dim == 2:
        quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(20) + 0.5) / 20)
        z = torch.cartesian_prod(-quantiles, quantiles).flip(1)  # z1 to the right, z2 upwards
        show_grid(left, model.compute_sigmoid_given(z.to(m)), 20, 20)
        tick_columns(left, {i: f"{quantiles[i]:.1f}" for i in (0, 5, 10, 14, 19)})
        label_rows(
            left, [f"{-q:.1f}" if i in (0, 5, 10, 14, 19) else "" for i, q in enumerate(quantiles)]
        )
        left.set_xlabel("$z_1$, at equal steps of probability", **FONT)
        left.set_ylabel("$z_2$", **FONT)
        left.set_title("decoder means over the plane", **FONT)
        plane, labels = m, ["posterior mean, $z_1$", "posterior mean, $z_2$"]
    else:
        kl = kl_normal(m.unsqueeze(-1), v.unsqueeze(-1), *model.z_prior).mean(0)
        order = kl.argsort(descending=True)[:MOST_DIMENSIONS]
        z = m.new_zeros(len(order), 13, model.z_dim)
        steps = torch.linspace(-3, 3, 13).to(m)
        z[torch.arange(len(order)), :, order.cpu()] = steps
        show_grid(left, model.compute_sigmoid_given(z.flatten(0, 1)), len(order), 13)
        label_rows(left, [f"$z_{{{i + 1}}}$, KL {kl[i]:.2f}" for i in order.tolist()])
        tick_columns(left, {i: f"{steps[i]:.0f}" for i in range(0, 13, 2)})
        left.set_xlabel("value of the latent dimension, the others 0", **FONT)
        left.set_title("decoder means along each dimension, by its KL in nats", **FONT)
        centered = m - m.mean(0)
        _, scale, directions = torch.linalg.svd(centered, full_matrices=False)
        share = scale.square() / scale.square().sum()
        plane = centered @ directions[:2].T
        labels = [
            f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(len(plane.T))
        ]
    scatter_digits(right, plane.cpu(), images.test_labels, labels)
    return finish(figure, f"Latent space: {title or model.name}", save_path)


@torch.no_grad()
def interpolation(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """Ten steps between the posterior means of two test images of different digits, five times."""
    x = report_images(images)[::10].to(model.z_prior_m.device)
    m, _ = model.enc.encode(x)
    steps = torch.linspace(0, 1, 10).to(m).view(1, 10, 1)
    path = torch.lerp(m[0::2, None], m[1::2, None], steps)
    means = model.compute_sigmoid_given(path.flatten(0, 1)).unflatten(0, (5, 10))
    rows = torch.cat([x[0::2, None], means, x[1::2, None]], 1)
    figure, axes = new_figure(8, 3.6)
    show_grid(axes, rows.flatten(0, 1), 5, 12)
    tick_columns(axes, {0: "input", 1: "0", 10: "1", 11: "input"})
    axes.set_xlabel("share of the way between the posterior means", **FONT)
    return finish(figure, f"Interpolation: {title or model.name}", save_path)


@torch.no_grad()
def samples_and_means(model: VAE, title: str = "", save_path: str | Path | None = None) -> "Figure":
    """A hundred latents of the prior, as decoder means and as Bernoulli draws from them."""
    mean = model.sample_sigmoid(100)
    figure, panels = new_figure(8, 4.6, columns=2)
    for axes, x, name in zip(
        panels,
        (mean, torch.bernoulli(mean)),
        ("decoder means E[x | z]", "draws x ~ p(x | z) of the same z"),
        strict=True,
    ):
        show_grid(axes, x, 10, 10)
        axes.set_title(name, **FONT)
    return finish(figure, f"Samples: {title or model.name}", save_path)


def write_all(model: VAE, images: Images, title: str, folder: Path) -> list[Path]:
    """Write every picture into the run's folder and return the files.

    The learning curve needs the metrics.csv that training leaves there, and is left out without.

    Raises:
        OSError: a file cannot be written.
    """
    paths = []

    def new(name: str) -> Path:
        """The file for one more picture."""
        paths.append(folder / name)
        return paths[-1]

    if (folder / "metrics.csv").exists():
        learning_curve(folder / "metrics.csv", title, new("learning_curve.png"))
    reconstructions(model, images, title, new("reconstructions.png"))
    latent_space(model, images, title, new("latent_space.png"))
    interpolation(model, images, title, new("interpolation.png"))
    samples_and_means(model, title, new("samples.png"))
    return paths
