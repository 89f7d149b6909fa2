"""Grids of images, titles and files."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT
from drawn import bits, cells, from_blocks, number, to_blocks
from matplotlib.colors import to_rgb

from codebase.pictures.drawing import (
    COLOURS,
    image_grid,
    label_cells,
    new_figure,
    put_title,
    show_grid,
    write_figure,
)

LONG_NAME = (
    "model=vae_nn=v2_z=10_batch_size=500_lr=0.002_lr_schedule=linear_dataset=synthetic_run=0000"
)
LONG_TITLE = "nn = v2, z = 10, batch_size = 500, lr = 0.002, run 0, 20,000 steps, synthetic digits"


def test_grid_holds_the_images_row_by_row():
    images = torch.arange(1, 6).float()[:, None].expand(5, 784)
    grid = image_grid(images, 2, 3)
    assert grid.shape == (58, 88)
    assert grid[::30, ::30].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert (grid[:28, 30:58] == 2).all()
    assert not grid[28:30].any()


def test_images_are_upright_and_black_on_white():
    _, axes = new_figure(3)
    show_grid(axes, from_blocks(bits(torch.arange(5))), 2, 3)
    grid = cells(axes, 2, 3).flatten(0, 1)
    assert number(to_blocks(grid[:5])).tolist() == [0, 1, 2, 3, 4]
    assert not grid[5].any()


def test_a_grey_pixel_has_its_value():
    _, axes = new_figure(3)
    show_grid(axes, torch.tensor([0.1, 0.25, 0.5, 0.8])[:, None].expand(4, 784), 1, 4)
    grid = cells(axes, 1, 4)[0]
    assert grid.amin((1, 2)).tolist() == pytest.approx([0.1, 0.25, 0.5, 0.8], abs=0.02)
    assert grid.amax((1, 2)).tolist() == pytest.approx([0.1, 0.25, 0.5, 0.8], abs=0.02)


def test_colour_blind_readers_can_tell_the_colours_apart():
    """Machado et al. 2009: linear RGB without one kind of cone. Distances are in OKLab."""
    without_cones = [
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ]
    # The distances are in OKLab.
    cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in without_cones:
        seen = np.cbrt((linear @ np.transpose(matrix)).clip(0, 1) @ np.transpose(cones))
        points = torch.tensor(seen @ np.transpose(lab))
        assert torch.pdist(points).min() > 0.05  # 0.01 with Matplotlib's usual ten


def test_labels_are_beside_rows_and_below_columns():
    figure, axes = new_figure(3)
    show_grid(axes, torch.ones(12, 784), 3, 4)
    label_cells(axes, ["first", "second"], {1: "one", 3: "three"})
    figure.draw_without_rendering()
    grid = axes.get_window_extent()
    place = {}
    for label in [*axes.get_yticklabels(), *axes.get_xticklabels()]:
        box = label.get_window_extent()
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        place[label.get_text()] = (x - grid.x0) / grid.width, (grid.y1 - y) / grid.height
    assert set(place) == {"first", "second", "one", "three"}
    for row, name in enumerate(["first", "second"]):
        assert place[name][0] < 0
        assert place[name][1] == pytest.approx((row + 0.5) / 3, abs=0.04)
    for column, name in ((1, "one"), (3, "three")):
        assert place[name][0] == pytest.approx((column + 0.5) / 4, abs=0.04)
        assert place[name][1] > 1


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_the_ending_of_a_file_decides_its_format(tmp_path, ending, start):
    figure, axes = new_figure(3)
    show_grid(axes, torch.rand(6, 784), 2, 3)
    write_figure(figure, tmp_path / f"picture.{ending}")
    assert (tmp_path / f"picture.{ending}").read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [f"picture.{ending}"]


def test_a_file_has_200_dots_per_inch(tmp_path):
    figure, _ = new_figure(3)
    write_figure(figure, str(tmp_path / "picture.png"))
    assert plt.imread(tmp_path / "picture.png").shape[:2] == (600, 1600)


@pytest.mark.slow
def test_a_file_is_written_where_the_backend_is_not_installed(tmp_path, start):
    """Colab sets MPLBACKEND for its own Python, and a virtual environment inherits it."""
    program = """
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples
visualize_samples(VAE(), save_path="samples.png")
"""
    backend = "module://not_installed.backend"
    process = start(
        "-c", program, env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": backend}
    )
    assert process.communicate() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


@pytest.mark.parametrize("name", ["picture.pt", "picture"])
def test_another_ending_is_refused(tmp_path, name):
    figure, _ = new_figure(3)
    with pytest.raises(ValueError, match="png"):
        write_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("title", ["short", LONG_TITLE, 3 * LONG_NAME])
def test_a_title_fits_into_the_figure(tmp_path, title):
    figure, _ = new_figure(3)
    put_title(figure, f"Samples: {title}")
    write_figure(figure, tmp_path / "picture.png")
    (text,) = figure.texts
    assert "".join(text.get_text().split()) == "".join(f"Samples: {title}".split())
    pixels = plt.imread(tmp_path / "picture.png")[..., :3]
    above = pixels[: int(600 * (1 - figure.axes[0].get_position().y1)) - 2]
    assert (above < 0.5).any()
    assert (above[:, :5] == 1).all() and (above[:, -5:] == 1).all() and (above[:2] == 1).all()


@pytest.mark.slow
def test_pictures_need_no_pyplot():
    """Pyplot chooses a backend, and may look for a screen."""
    modules = "codebase.visualize, codebase.pictures.gallery, codebase.pictures.explorer"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"matplotlib.pyplot", "torchvision"} & set(done.stdout.split())
