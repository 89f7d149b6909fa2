"""Pictures."""

import matplotlib.pyplot as plt
import pytest
import torch

from codebase.models.vae import VAE
from codebase.visualize import image_grid, visualize_samples


def test_grid_holds_the_images_row_by_row():
    images = torch.arange(1, 6).float()[:, None].expand(5, 784)
    grid = image_grid(images, 2, 3)
    assert grid.shape == (60, 90)
    corners = grid[::30, ::30]
    assert corners.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert (grid[:28, 30:58] == 2).all()
    assert not grid[28:30].any()


def test_samples_are_written_as_a_png(tmp_path):
    path = tmp_path / "samples.png"
    visualize_samples(VAE(), save_path=path)
    picture = plt.imread(path)
    height, width = picture.shape[:2]
    assert width >= 800
    assert height < width
    # An untrained model inks about half the pixels of the 10 x 20 images.
    assert 0.3 < picture[100:, :, 0].mean() < 0.7
    assert plt.get_fignums() == []


def test_samples_are_shown_without_a_path(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    visualize_samples(VAE(), num_samples=5, grid_size=(2, 3))
    assert shown == [[1]]
    plt.close("all")


def test_samples_must_fit():
    with pytest.raises(ValueError, match="7 samples do not fit into a grid of 2 x 3"):
        visualize_samples(VAE(), num_samples=7, grid_size=(2, 3))
