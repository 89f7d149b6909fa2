"""Figures of the latent space: its decoder means, and the posterior means of the test images."""

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from codebase.data import Images
from codebase.evaluate import device_of, kl_of_dimensions
from codebase.models.vae import VAE
from codebase.pictures import drawing

MOST_DIMENSIONS = 20  # rows of a traversal
VALUES = range(-3, 4)  # values of the dimension that a row varies


@torch.no_grad()
def latent_space(model: VAE, images: Images) -> Figure | None:
    """Show decoder means across the latent space beside the posterior means of the test images.

    With z = 2 both panels show the plane. With more dimensions, the left panel moves one at a time,
    and the right one shows the first two principal components. None if z = 1.
    """
    if model.z_dim == 1:
        return None
    m, _ = model.enc.encode(images.test_bits.to(device_of(model)))
    if model.z_dim == 2:
        return _plane(model, m, images.test_labels)
    return _traversal(model, m, images.test_labels, kl_of_dimensions(model, images.test_bits))


def _plane(model: VAE, m: Tensor, labels: Tensor) -> Figure:
    """Show the plane of two dimensions: its decoder means, and the posterior means m (n, 2)."""
    # The axes hold 99 % of the posterior means, and all of the prior that matters.
    farthest = m.abs().amax(1)
    limit = max(2.0, math.ceil(2 * farthest.quantile(0.99, interpolation="higher")) / 2)
    figure, (left, right) = drawing.new_figure(4.2, 1, 2)
    cells = 20
    centres = (torch.arange(cells) + 0.5) * (2 * limit / cells) - limit
    z = torch.cartesian_prod(-centres, centres).flip(1)  # z1 grows to the right, z2 upwards
    drawing.show_grid(left, model.compute_sigmoid_given(z.to(m)), cells, cells, limit)
    drawing.name_axes(left, "decoder means", "$z_1$", "$z_2$")
    drawing.scatter_points(right, m.cpu(), labels)
    right.set(xlim=(-limit, limit), ylim=(-limit, limit))
    title = f"posterior means of {len(m):,} test images ({(farthest > limit).sum()} outside)"
    drawing.name_axes(right, title, "$z_1$", "$z_2$")
    return figure


def _traversal(model: VAE, m: Tensor, labels: Tensor, kl: Tensor) -> Figure:
    """Show the decoder means along each dimension, and the posterior means m (n, z) in a plane."""
    order = kl.argsort(descending=True).tolist()
    shown = order[:MOST_DIMENSIONS]
    # Both panels have the height of the right one, which is square, in the width that texts leave.
    ratio = min(1, len(VALUES) / len(shown))
    height = (drawing.WIDTH - 1.8) / (1 + ratio)
    figure, (left, right) = drawing.new_figure(height + 1.2, 1, 2, width_ratios=(ratio, 1))
    z = m.new_zeros(len(shown), len(VALUES), model.z_dim)
    z[range(len(shown)), :, shown] = m.new_tensor(VALUES)
    drawing.show_grid(left, model.compute_sigmoid_given(z.flatten(0, 1)), len(shown), len(VALUES))
    rows = [f"$z_{{{i + 1}}}$, KL {kl[i]:.2f}" for i in shown]
    drawing.label_cells(left, rows, {i: f"{value}" for i, value in enumerate(VALUES)})
    title = "decoder means along each dimension,\nsorted by KL (nats)"
    if hidden := order[MOST_DIMENSIONS:]:
        title += f"\n{len(hidden)} more have a KL of at most {kl[hidden[0]]:.2f}"
    drawing.name_axes(left, title, "value of the dimension; the others are 0")
    directions, share = principal_components(m)
    drawing.scatter_points(right, ((m - m.mean(0)) @ directions).cpu(), labels)
    names = [f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in (0, 1)]
    drawing.name_axes(right, f"posterior means of {len(m):,} test images", *names)
    return figure


def principal_components(points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the two directions in which points (n, dim), dim at least 2, vary most.

    Returns:
        directions (dim, 2) of length 1, and the share of the variance along each, (2,).

    Source: Bishop 2006, section 12.1.1.
    """
    variances, directions = torch.linalg.eigh(points.cpu().double().T.cov())
    directions = directions[:, -2:].flip(1)
    # The sign of a direction is arbitrary, so its largest entry is made positive.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    share = variances[-2:].flip(0) / variances.sum()
    return (directions * signs).to(points), share.to(points)
