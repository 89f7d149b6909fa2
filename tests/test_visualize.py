"""Pictures."""

import matplotlib.pyplot as plt
import pytest
import torch

from codebase import visualize
from codebase.drawing import image_grid
from codebase.errors import DataError
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples


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


@pytest.mark.parametrize("z", [1, 2, 10, 30])
def test_every_picture_is_drawn_for_any_z(synthetic_images, tmp_path, z):
    (tmp_path / "metrics.csv").write_text(
        "step,images,NELBO,KL,REC\n100,train,200,10,190\n200,train,150,15,135\n200,test,148,15,133\n"
    )
    paths = visualize.write_all(VAE(z_dim=z), synthetic_images, "a title", tmp_path)
    assert len(paths) == 5
    for path in paths:
        picture = plt.imread(path)
        assert picture.shape[1] >= 800
        assert 0.001 < (picture[..., :3] < 0.5).mean() < 0.9  # neither empty nor black


def test_pictures_are_figures_for_a_notebook(synthetic_images):
    figure = visualize.latent_space(VAE(z_dim=2), synthetic_images)
    left, right = figure.axes
    assert "vae" in figure.get_suptitle()
    assert right.get_xlabel() == "posterior mean, $z_1$"
    assert left.get_xticklabels()


def test_the_traversal_is_ordered_by_kl(synthetic_images):
    model = VAE(z_dim=3)
    with torch.no_grad():
        model.enc.net[4].bias[:3] = torch.tensor([0.0, 3.0, 1.0])  # means far from 0 cost most
    figure = visualize.latent_space(model, synthetic_images)
    names = [label.get_text().split(",")[0] for label in figure.axes[0].get_yticklabels()]
    assert names == ["$z_{2}$", "$z_{3}$", "$z_{1}$"]


@pytest.mark.parametrize(
    "content", [b"step,images,NELBO\n100,train\n", b"step,images\n\xff,\xfe\n"]
)
def test_damaged_metrics_are_named(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.csv is damaged"):
        visualize.learning_curve(tmp_path / "metrics.csv")
