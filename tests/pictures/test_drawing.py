"""Grids of images, titles and files."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from codebase.drawing import finish, image_grid, new_figure, show_grid
from pictures import bits, cells, from_blocks, number, to_blocks

LONG_NAME = (
    "model=vae_nn=v2_z=10_batch_size=500_lr=0.002_lr_schedule=linear_dataset=synthetic_run=0000"
)


def test_grid_holds_the_images_row_by_row():
    images = torch.arange(1, 6).float()[:, None].expand(5, 784)
    grid = image_grid(images, 2, 3)
    assert grid.shape == (58, 88)
    assert grid[::30, ::30].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert (grid[:28, 30:58] == 2).all()
    assert not grid[28:30].any()


def test_images_are_seen_upright_in_black_on_white_row_by_row(tmp_path):
    figure, axes = new_figure(3)
    show_grid(axes, from_blocks(bits(torch.arange(5))), 2, 3)
    finish(figure, "a title", tmp_path / "grid.png")
    grid = cells(tmp_path / "grid.png", axes, 2, 3).flatten(0, 1)
    assert number(to_blocks(grid[:5])).tolist() == [0, 1, 2, 3, 4]
    assert not grid[5].any()


def test_grey_is_as_dark_as_the_number_says(tmp_path):
    figure, axes = new_figure(3)
    show_grid(axes, torch.tensor([0.1, 0.25, 0.5, 0.8])[:, None].expand(4, 784), 1, 4)
    finish(figure, "a title", tmp_path / "grid.png")
    grid = cells(tmp_path / "grid.png", axes, 1, 4)[0]
    assert grid.amin((1, 2)).tolist() == pytest.approx([0.1, 0.25, 0.5, 0.8], abs=0.02)
    assert grid.amax((1, 2)).tolist() == pytest.approx([0.1, 0.25, 0.5, 0.8], abs=0.02)


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_a_file_is_what_its_ending_says_and_the_same_on_another_day(
    tmp_path, monkeypatch, ending, start
):
    contents = []
    for day in (0, 1_000_000):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(day))  # where matplotlib takes the date from
        figure, (left, right) = new_figure(3, 1, 2)
        show_grid(left, torch.rand(6, 784, generator=torch.Generator().manual_seed(0)), 2, 3)
        right.fill_between([0, 1], [0, 1], hatch="/")  # has a name in an SVG file
        finish(figure, "a title", tmp_path / f"picture.{ending}")
        contents.append((tmp_path / f"picture.{ending}").read_bytes())
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]
    assert b"1970" not in contents[0]
    assert [path.name for path in tmp_path.iterdir()] == [f"picture.{ending}"]


def test_a_file_has_200_dots_an_inch(tmp_path):
    figure, _ = new_figure(3)
    finish(figure, "a title", tmp_path / "picture.png")
    assert plt.imread(tmp_path / "picture.png").shape[:2] == (600, 1600)


@pytest.mark.parametrize("name", ["picture.jpg", "picture"])
def test_another_ending_is_refused(tmp_path, name):
    figure, _ = new_figure(3)
    with pytest.raises(ValueError, match=rf"must end in .png, .pdf, .svg, not '{name}'"):
        finish(figure, "a title", tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("title", "least"),
    [("short", 10), (f"{LONG_NAME}, 20000 steps, synthetic", 9), (2 * LONG_NAME, 4)],
)
def test_a_title_is_whole_inside_of_the_figure_and_readable(tmp_path, title, least):
    figure, _ = new_figure(3)
    finish(figure, f"Samples: {title}", tmp_path / "picture.png")
    (text,) = figure.texts
    assert text.get_text().split() == f"Samples: {title}".split()
    assert text.get_fontsize() >= least
    pixels = plt.imread(tmp_path / "picture.png")[..., :3]
    above = pixels[: int(600 * (1 - figure.axes[0].get_position().y1)) - 2]
    assert (above < 0.5).any()
    assert (above[:, :5] == 1).all() and (above[:, -5:] == 1).all() and (above[:2] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [("drawing", {"torch", "numpy", "matplotlib"}), ("visualize", {"matplotlib", "torchvision"})],
)
def test_nothing_slow_is_imported_before_it_is_needed(module, absent):
    code = f"import sys, codebase.{module}; print(*sys.modules)"
    folder = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "not installed"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not absent & set(done.stdout.split())
