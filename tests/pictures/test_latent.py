"""Figures of the latent space."""

import numpy as np
import pytest
import torch
from drawn import DPI, cells, known_model, labels, normal, painted
from matplotlib.colors import to_rgba_array

from codebase.pictures import drawing
from codebase.pictures.latent import latent_space, principal_components

pytest_plugins = ["drawn"]

COLOURS = to_rgba_array(drawing.COLOURS)


@pytest.mark.slow
def test_the_plane_decodes_its_z_beside_99_percent_of_the_means_in_the_colours_of_digits(images):
    m = normal(10000, 2) * torch.tensor([1.25, 0.3])
    m[0] = torch.tensor([7.0, 0.0])
    left, right = latent_space(known_model(m), images).axes
    low, limit = left.get_xlim()
    assert low == -limit
    assert left.get_ylim() == right.get_xlim() == right.get_ylim() == (low, limit)
    outside = (m.abs() > limit).any(1).sum()
    assert 0 < outside <= 100
    assert f"{outside} outside" in right.get_title()
    for axes in (left, right):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    z = painted(cells(left, 20, 20, margin=1, dpi=2 * DPI))[..., :2]
    middles = (torch.arange(20) - 9.5) / 10 * limit
    expected = torch.stack(torch.meshgrid(middles, middles.flip(0), indexing="xy"), 2)
    assert (z - expected).abs().max() < 0.1
    assert len(labels(left.xaxis)) >= 5 and len(labels(left.yaxis)) >= 5
    right.figure.draw_without_rendering()  # This sets the colours.
    (dots,) = right.collections
    assert torch.equal(torch.from_numpy(dots.get_offsets().data).float(), m)
    assert np.allclose(dots.get_facecolor(), COLOURS[images.test_labels])


def test_the_plane_shows_the_prior_even_if_the_means_are_close_together(images):
    figure = latent_space(known_model(normal(10000, 2) / 100), images)
    assert [axes.get_xlim() for axes in figure.axes] == [(-2, 2), (-2, 2)]
    assert "0 outside" in figure.axes[1].get_title()


def test_a_single_dimension_has_no_figure(images):
    assert latent_space(known_model(normal(10000, 1)), images) is None


@pytest.mark.slow
def test_the_traversal_moves_the_dimensions_with_most_kl_and_is_as_high_as_the_other_panel(images):
    order, kl = torch.randperm(30).tolist(), torch.empty(30)
    kl[order] = 0.3 - 0.01 * torch.arange(30)
    # With the variance 1, the KL is half the mean square of the means.
    m = normal(10000, 30)
    m = (m - m.mean(0)) / m.std(0, correction=0) * (2 * kl).sqrt()
    figure = latent_space(known_model(m), images)
    drawing.put_title(figure, "Latent space")
    left, right = figure.axes
    z, expected = painted(cells(left, 20, 7))[..., :30], torch.zeros(20, 7, 30)
    for row, (dimension, label) in enumerate(zip(order, labels(left.yaxis), strict=False)):
        expected[row, :, dimension] = torch.arange(-3.0, 4)
        assert f"z_{{{dimension + 1}}}" in label and f"{kl[dimension]:.2f}" in label
    assert (z - expected).abs().max() < 0.1
    assert labels(left.xaxis) == ["-3", "-2", "-1", "0", "1", "2", "3"]
    assert "10 more" in left.get_title() and "0.10" in left.get_title()
    heights = [axes.get_window_extent().height for axes in (left, right)]
    assert heights[0] == pytest.approx(heights[1], rel=0.1)


@pytest.mark.slow
def test_the_means_are_plotted_along_their_principal_components(images):
    m = normal(10000, 3) @ torch.tensor([[0.0, 2.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 1.0]]) + 5
    _, right = latent_space(known_model(m), images).axes
    (dots,) = right.collections
    expected = (m - m.mean(0))[:, [1, 2]].numpy()
    assert dots.get_offsets().data == pytest.approx(expected, abs=0.2)
    assert np.allclose(dots.to_rgba(dots.get_array()), COLOURS[images.test_labels])
    assert "1" in right.get_xlabel() and "78%" in right.get_xlabel()
    assert "2" in right.get_ylabel() and "20%" in right.get_ylabel()


@pytest.mark.parametrize(("n", "dim"), [(1000, 7), (5, 300)])
def test_principal_components_equal_a_singular_value_decomposition(n, dim):
    spectrum = 0.8 ** torch.arange(dim) + 0.01
    x = normal(n, dim) * spectrum @ torch.linalg.qr(normal(dim, dim))[0] + 3
    found, share = principal_components(x)
    _, scale, directions = torch.linalg.svd((x - x.mean(0)).double(), full_matrices=False)
    # The largest entry is positive, so that the sign is always the same.
    expected = directions[:2].T
    expected = expected * expected.gather(0, expected.abs().argmax(0, keepdim=True)).sign()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    assert share.tolist() == pytest.approx((scale.square() / scale.square().sum())[:2], rel=1e-4)
