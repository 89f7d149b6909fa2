"""Pictures of the latent space: what its places decode to, and where the test images are in it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codebase.data import Images
from codebase.evaluate import all_images, device_of, kl_of_dimensions
from codebase.models.vae import VAE
from codebase.pictures.drawing import (
    FONT,
    finish,
    label_rows,
    new_figure,
    plain_axes,
    scatter_digits,
    show_grid,
    tick_columns,
)

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

MOST_DIMENSIONS = 20  # rows of a traversal


@torch.no_grad()
def latent_space(
    model: VAE, images: Images, title: str = "", save_path: str | Path | None = None
) -> "Figure":
    """What each place of the latent space decodes to, and where the test images are in it.

    One or two latent dimensions are shown whole. Of more, each is moved from -3 to 3 with the
    others at 0, in the order of their KL, and the means are seen along the two directions in which
    they vary most.
    """
    m, v = model.enc.encode(all_images(images).to(device_of(model)))
    if model.z_dim == 1:
        figure = _draw_line(model, m, images.test_labels)
    elif model.z_dim == 2:
        figure = _draw_plane(model, m, images.test_labels)
    else:
        figure = _draw_directions(model, m, v, images.test_labels)
    return finish(figure, f"Latent space: {title or model.name}", save_path)


def _draw_line(model: VAE, m: Tensor, digits: Tensor) -> "Figure":
    """One dimension: what it decodes to, and below how many test images of each digit lie where."""
    reach, cells = _reach(m), 24
    figure, (above, below) = new_figure(4.6, 2, 1, height_ratios=(1, 8))
    z = _centres(reach, cells).view(-1, 1)
    show_grid(above, model.compute_sigmoid_given(z.to(m)), 1, cells, reach)
    above.set_title("decoder means", **FONT)
    above.set_axis_off()
    edges = torch.linspace(-reach, reach, 4 * cells + 1)
    counts = [m[digits == digit].cpu().histogram(edges).hist for digit in range(10)]
    most = torch.cat(counts).max()
    for digit, count in enumerate(counts):
        bars = 0.9 * count / most - digit
        below.stairs(bars, edges, baseline=-digit, fill=True, color=f"C{digit}")
    plain_axes(
        below, f"{_name_means(m, reach)}; the highest bar is {most:.0f} images", "$z_1$", "digit"
    )
    below.set_yticks([-digit for digit in range(10)], range(10))
    below.set(xlim=(-reach, reach), ylim=(-9.2, 1))
    return figure


def _draw_plane(model: VAE, m: Tensor, digits: Tensor) -> "Figure":
    """Two dimensions, twice on the same axes: what they decode to, and the posterior means."""
    reach, cells = _reach(m), 20
    figure, (left, right) = new_figure(4.2, 1, 2)
    centres = _centres(reach, cells)
    z = torch.cartesian_prod(-centres, centres).flip(1)  # z1 to the right, z2 upwards
    show_grid(left, model.compute_sigmoid_given(z.to(m)), cells, cells, reach)
    plain_axes(left, "decoder means", "$z_1$", "$z_2$")
    scatter_digits(right, m.cpu(), digits)
    right.set(xlim=(-reach, reach), ylim=(-reach, reach))
    plain_axes(right, _name_means(m, reach), "$z_1$", "$z_2$")
    return figure


def _reach(m: Tensor) -> float:
    """The reach of axes that hold 99 % of the means (n, z), and all of the prior that matters."""
    farthest = m.abs().amax(1).quantile(0.99, interpolation="higher")
    return max(2.0, math.ceil(2 * farthest) / 2)


def _centres(reach: float, cells: int) -> Tensor:
    """The middles (cells,) of the equal cells that divide -reach to reach."""
    return (torch.arange(cells) + 0.5) * (2 * reach / cells) - reach


def _name_means(m: Tensor, reach: float) -> str:
    """What the posterior means (n, z) are called on axes from -reach to reach."""
    outside = int((m.abs().amax(1) > reach).sum())
    return f"posterior means of {len(m)} test images, by digit" + (
        f"; {outside} lie outside" if outside else ""
    )


def _draw_directions(model: VAE, m: Tensor, v: Tensor, digits: Tensor) -> "Figure":
    """More dimensions: what each decodes to, and the means along their principal components."""
    kl = kl_of_dimensions(model, m, v)
    order = kl.argsort(descending=True).tolist()
    shown, hidden = order[:MOST_DIMENSIONS], order[MOST_DIMENSIONS:]
    figure, (left, right) = new_figure(max(4, 0.24 * len(shown) + 1), 1, 2)
    steps = torch.linspace(-3, 3, 13).to(m)
    z = m.new_zeros(len(shown), 13, model.z_dim)
    z[range(len(shown)), :, shown] = steps
    show_grid(left, model.compute_sigmoid_given(z.flatten(0, 1)), len(shown), 13)
    label_rows(left, [f"$z_{{{i + 1}}}$, KL {kl[i]:.2f}" for i in shown])
    tick_columns(left, {i: f"{steps[i]:.0f}" for i in range(0, 13, 2)})
    left.set_xlabel("value of the latent dimension, the others 0", **FONT)
    title = "decoder means along each dimension,\nby its KL in nats"
    if hidden:
        title += f"; {len(hidden)} more, of {kl[hidden[0]]:.2f} at most, are not shown"
    left.set_title(title, **FONT)
    directions, share = principal_components(m)
    scatter_digits(right, ((m - m.mean(0)) @ directions).cpu(), digits)
    names = [f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in (0, 1)]
    plain_axes(right, f"posterior means of {len(m)} test images, by digit", *names)
    return figure


def principal_components(points: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions in which points (n, dim), dim at least 2, vary most.

    Returns:
        the directions (dim, 2) of length 1, and the share of the variance along each (2,).

    Source: Bishop 2006, section 12.1.1.
    """
    variances, directions = torch.linalg.eigh(points.cpu().double().T.cov(correction=0))
    directions, variances = directions[:, -2:].flip(1), variances.clamp_min(0)
    # A direction and its opposite are one: the largest entry is made positive.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    share = variances[-2:].flip(0) / variances.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return (directions * largest.sign()).to(points), share.to(points)
