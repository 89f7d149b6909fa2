"""Pictures of what the model has learned. Every function returns the figure, or saves it as PNG."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codebase.data import Images, report_rows
from codebase.errors import DataError
from codebase.evaluate import report_images
from codebase.files import write_atomically
from codebase.models.vae import VAE
from codebase.utils import kl_normal

if TYPE_CHECKING:  # slow to import, hence inside the functions
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 2  # empty pixels between the images of a grid
INK = "gray_r"
FONT = {"fontsize": 9}
DPI = 120
MOST_DIMENSIONS = 20  # rows of a traversal
COLUMNS = ("step", "NELBO", "KL", "REC")  # the numbers of metrics.csv


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
    figure, axes = _figure(8, 8 * rows / columns + 0.4, shown=save_path is None)
    _show_grid(axes, x, rows, columns)
    _finish(figure, f"Samples x ~ p(x | z), z ~ p(z): {title or model.name}", save_path)
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
    with open(metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        points = [(row["images"], *(float(row[key]) for key in COLUMNS)) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{metrics} is damaged; delete it to go without a learning curve") from None
    figure, panels = _figure(8, 3, columns=3)
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
    panels[0].legend(fontsize=8, frameon=False)
    return _finish(figure, f"Learning curve: {title or Path(metrics).parent.name}", save_path)


@torch.no_grad()
def reconstructions(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """A test image of each digit, its binarized input, and the mean of p(x | z) at z = E[z | x]."""
    rows = report_rows(images.test_labels)[::10]
    x = report_images(images)[::10].to(model.z_prior_m.device)
    mean = model.compute_sigmoid_given(model.enc.encode(x)[0])
    figure, axes = _figure(8, 2.7)
    _show_grid(axes, torch.cat([images.test[rows] / 255, x.cpu(), mean.cpu()]), 3, 10)
    _label_rows(axes, ["image", "binarized input", "reconstruction"])
    return _finish(figure, f"Reconstructions: {title or model.name}", save_path)


@torch.no_grad()
def latent_space(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """What each place of the latent space decodes to, and where the test images are in it.

    With two latent dimensions, the decoder's means over the plane at the normal quantiles; with
    others, a traversal of each dimension from -3 to 3 with the others at 0, ordered by their KL.
    """
    x = images.test.to(model.z_prior_m.device) / 255
    m, v = model.enc.encode(x)
    figure, (left, right) = _figure(10, 5, columns=2)
    if model.z_dim == 2:
        quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(20) + 0.5) / 20)
        z = torch.cartesian_prod(-quantiles, quantiles).flip(1)  # z1 to the right, z2 upwards
        _show_grid(left, model.compute_sigmoid_given(z.to(m)), 20, 20)
        _tick_columns(left, {i: f"{quantiles[i]:.1f}" for i in (0, 5, 10, 14, 19)})
        _label_rows(
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
        _show_grid(left, model.compute_sigmoid_given(z.flatten(0, 1)), len(order), 13)
        _label_rows(left, [f"$z_{{{i + 1}}}$, KL {kl[i]:.2f}" for i in order.tolist()])
        _tick_columns(left, {i: f"{steps[i]:.0f}" for i in range(0, 13, 2)})
        left.set_xlabel("value of the latent dimension, the others 0", **FONT)
        left.set_title("decoder means along each dimension, by its KL in nats", **FONT)
        centered = m - m.mean(0)
        _, scale, directions = torch.linalg.svd(centered, full_matrices=False)
        share = scale.square() / scale.square().sum()
        plane = centered @ directions[:2].T
        labels = [
            f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(len(plane.T))
        ]
    _scatter_digits(right, plane.cpu(), images.test_labels, labels)
    return _finish(figure, f"Latent space: {title or model.name}", save_path)


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
    figure, axes = _figure(8, 3.6)
    _show_grid(axes, rows.flatten(0, 1), 5, 12)
    _tick_columns(axes, {0: "input", 1: "0", 10: "1", 11: "input"})
    axes.set_xlabel("share of the way between the posterior means", **FONT)
    return _finish(figure, f"Interpolation: {title or model.name}", save_path)


@torch.no_grad()
def samples_and_means(model: VAE, title: str = "", save_path: str | Path | None = None) -> "Figure":
    """A hundred latents of the prior, as decoder means and as Bernoulli draws from them."""
    mean = model.sample_sigmoid(100)
    figure, panels = _figure(8, 4.6, columns=2)
    for axes, x, name in zip(
        panels,
        (mean, torch.bernoulli(mean)),
        ("decoder means E[x | z]", "draws x ~ p(x | z) of the same z"),
        strict=True,
    ):
        _show_grid(axes, x, 10, 10)
        axes.set_title(name, **FONT)
    return _finish(figure, f"Samples: {title or model.name}", save_path)


def write_all(model: VAE, images: Images, title: str, folder: Path) -> list[Path]:
    """Write every picture into the run's folder and return the files.

    The learning curve needs the metrics.csv that training leaves there, and is left out without.

    Raises:
        OSError: a file cannot be written.
    """
    paths = []

    def new(name: str) -> Path:
        paths.append(folder / name)
        return paths[-1]

    if (folder / "metrics.csv").exists():
        learning_curve(folder / "metrics.csv", title, new("learning_curve.png"))
    reconstructions(model, images, title, new("reconstructions.png"))
    latent_space(model, images, title, new("latent_space.png"))
    interpolation(model, images, title, new("interpolation.png"))
    samples_and_means(model, title, new("samples.png"))
    return paths


def _figure(width: float, height: float, columns: int = 1, shown: bool = False) -> tuple:
    """An empty figure in inches and its axes. Only one to be shown needs pyplot, and a screen."""
    if shown:
        from matplotlib.pyplot import figure as new_figure
    else:
        from matplotlib.figure import Figure as new_figure
    figure = new_figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(1, columns)


def _show_grid(axes: "Axes", images: Tensor, rows: int, columns: int) -> None:
    """Draw a grid of images as one; an axes for each would take seconds."""
    grid = image_grid(images, rows, columns)[:-GAP, :-GAP].cpu().numpy()
    axes.imshow(grid, cmap=INK, vmin=0, vmax=1, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _label_rows(axes: "Axes", labels: Sequence[str]) -> None:
    places = [i * (28 + GAP) + 14 for i in range(len(labels))]
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(length=0)


def _tick_columns(axes: "Axes", labels: dict[int, str]) -> None:
    axes.set_xticks([i * (28 + GAP) + 14 for i in labels], labels.values(), fontsize=8)
    axes.tick_params(length=0)


def _scatter_digits(axes: "Axes", points: Tensor, digits: Tensor, labels: Sequence[str]) -> None:
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


def _finish(figure: "Figure", title: str, save_path: str | Path | None) -> "Figure":
    figure.suptitle(title, fontsize=10)
    if save_path is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_atomically(Path(save_path), picture.getvalue())
    return figure
