"""Grids of images, scatter plots, titles and files."""

import os

import pytest
import torch
from conftest import ROOT
from drawn import bits, cells, from_blocks, labels, number, seen
from matplotlib.colors import to_rgb

from codebase.pictures import drawing
from codebase.pictures.drawing import COLOURS, new_figure, show_grid, write_figure

pytestmark = pytest.mark.slow
pytest_plugins = ["drawn"]


def test_images_are_upright_black_on_white_and_in_order_with_labels_but_without_a_frame():
    greys = torch.tensor([0.25, 0.8])[:, None].expand(2, 784)
    _, (left, right, white) = new_figure(3, 1, 3)
    show_grid(left, from_blocks(bits(torch.arange(5))), 2, 3)
    show_grid(right, greys, 1, 2)
    show_grid(white, torch.zeros(6, 784), 2, 3)
    drawing.label_cells(white, ["above", "below"], {0: "left", 2: "right"})
    grid = cells(left, 2, 3).flatten(0, 1)
    assert number(grid[:5]).tolist() == [0, 1, 2, 3, 4] and not grid[5].any()
    torch.testing.assert_close(cells(right, 1, 2)[0].flatten(1), greys, rtol=0, atol=0.02)
    assert (seen(white) == 1).all()
    # The labels are at the middles of images of 28 pixels, with 2 pixels between them.
    assert labels(white.yaxis) == ["above", "below"] and labels(white.xaxis) == ["left", "right"]
    assert white.get_yticks().tolist() == [14, 44] and white.get_xticks().tolist() == [14, 74]


def test_points_have_the_colours_of_their_labels_and_one_scale():
    """The colour of a digit depends on no other, and more labels repeat the ten colours."""
    figure, axes = new_figure(3, 1, 3)
    digits = torch.tensor([3, 8, 3, 1]), torch.arange(1, 27), torch.empty(0)
    for each, values in zip(axes, digits, strict=True):
        drawing.scatter_points(each, torch.rand(len(values) or 9, 2), values)
    figure.draw_without_rendering()
    for each, values in zip(axes[:2], digits, strict=False):
        colours = [to_rgb(colour) for colour in each.collections[0].get_facecolor()]
        assert colours == [to_rgb(COLOURS[label % 10]) for label in values]
        legend = each.get_legend()
        texts = [int(text.get_text()) for text in legend.get_texts()]
        assert texts == values.unique().tolist()
        shown = [to_rgb(handle.get_markerfacecolor()) for handle in legend.legend_handles]
        assert shown == [to_rgb(COLOURS[text % 10]) for text in texts]
        (x0, y0), (x1, y1) = each.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y1 - y0)
    assert len(axes[2].collections[0].get_facecolor()) == 1  # Without labels, one colour.
    assert axes[2].get_legend() is None


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml")])
def test_the_ending_of_a_file_decides_its_format(tmp_path, name, start):
    figure, _ = new_figure(3)
    write_figure(figure, str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)
    for other in ("picture.pt", "picture"):
        with pytest.raises(ValueError, match="png"):
            write_figure(figure, tmp_path / other)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_picture_is_written_without_pyplot_and_its_backend(tmp_path, start):
    """Colab sets MPLBACKEND for its own Python, and a virtual environment inherits it."""
    program = """
import sys
import codebase.pictures.explorer, codebase.pictures.gallery
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples
visualize_samples(VAE(), save_path="samples.png")
print({"matplotlib.pyplot", "torchvision"} & {*sys.modules})
"""
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "module://not_installed.backend"}
    process = start("-c", program, env=os.environ | environment)
    assert process.communicate() == ("set()\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
