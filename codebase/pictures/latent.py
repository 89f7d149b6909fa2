"""Pictures of the latent space: what its places decode to, and where the test images are in it."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codebase.data import Images
from codebase.evaluate import all_images, device_of, kl_of_dimensions
from codebase.models.vae import VAE
from codebase.pictures import drawing

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

MOST_DIMENSIONS = 20  # rows of a traversal


@torch.no_grad()
def latent_space(model: VAE, images: Images) -> "Figure | None":
    """What each place of the latent space decodes to, and where the test images are in it.

    Two latent dimensions are shown whole. Of more, each is moved from -3 to 3 with the others at 0,
    in the order of their KL, and the means are seen along the two directions in which they vary
    most. Of a single one there is no picture.
    """
    m, v = model.enc.encode(all_images(images).to(device_of(model)))
    if model.z_dim == 1:
        return None
    draw = _draw_plane if model.z_dim == 2 else _draw_directions
    return draw(model, m, v, images.test_labels)


def _draw_plane(model: VAE, m: Tensor, _: Tensor, digits: Tensor) -> "Figure":
    """Two dimensions, twice on the same axes: what they decode to, and the posterior means."""
    # Axes that hold 99 % of the means, and all of the prior that matters.
    farthest = m.abs().amax(1)
    reach = max(2.0, math.ceil(2 * farthest.quantile(0.99, interpolation="higher")) / 2)
    cells = 20
    centres = (torch.arange(cells) + 0.5) * (2 * reach / cells) - reach
    figure, (left, right) = drawing.new_figure(4.2, 1, 2)
    z = torch.cartesian_prod(-centres, centres).flip(1)  # z1 to the right, z2 upwards
    drawing.show_grid(left, model.compute_sigmoid_given(z.to(m)), cells, cells, reach)
    drawing.plain_axes(left, "decoder means", "$z_1$", "$z_2$")
    drawing.scatter_digits(right, m.cpu(), digits)
    right.set(xlim=(-reach, reach), ylim=(-reach, reach))
    outside = int((farthest > reach).sum())
    title = f"posterior means of {len(m)} test images, by digit"
    drawing.plain_axes(
        right, f"{title}; {outside} lie outside" if outside else title, "$z_1$", "$z_2$"
    )
    return figure


def _draw_directions(model: VAE, m: Tensor, v: Tensor, digits: Tensor) -> "Figure":
    """More dimensions: what each decodes to, and the means along their principal components."""
    kl = kl_of_dimensions(model, m, v)
    order = kl.argsort(descending=True).tolist()
    shown, hidden = order[:MOST_DIMENSIONS], order[MOST_DIMENSIONS:]
    figure, (left, right) = drawing.new_figure(max(4, 0.24 * len(shown) + 1), 1, 2)
    steps = torch.linspace(-3, 3, 13).to(m)
    z = m.new_zeros(len(shown), 13, model.z_dim)
    z[range(len(shown)), :, shown] = steps
    drawing.show_grid(left, model.compute_sigmoid_given(z.flatten(0, 1)), len(shown), 13)
    rows = [f"$z_{{{i + 1}}}$, KL {kl[i]:.2f}" for i in shown]
    drawing.label_cells(left, rows, {i: f"{steps[i]:.0f}" for i in range(0, 13, 2)})
    left.set_xlabel("value of the latent dimension, the others 0", **drawing.FONT)
    title = "decoder means along each dimension,\nby its KL in nats"
    if hidden:
        title += f"; {len(hidden)} more, of {kl[hidden[0]]:.2f} at most, are not shown"
    left.set_title(title, **drawing.FONT)
    directions, share = principal_components(m)
    drawing.scatter_digits(right, ((m - m.mean(0)) @ directions).cpu(), digits)
    names = [f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in (0, 1)]
    drawing.plain_axes(right, f"posterior means of {len(m)} test images, by digit", *names)
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
