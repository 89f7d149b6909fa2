"""The picture of two hundred samples."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawn import bits, cells, from_blocks, known_model, means, number, to_blocks

from codebase.models.vae import VAE
from codebase.visualize import visualize_samples


class Numbered(VAE):
    """A model whose samples are numbered."""

    def sample_x(self, batch):
        return from_blocks(bits(torch.arange(batch)))


@pytest.fixture
def shown(monkeypatch):
    """The numbers of the open figures at each call of `show`."""
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    yield shown
    plt.close("all")


def test_samples_are_shown_row_by_row_without_a_path(shown):
    visualize_samples(Numbered(name="a model"), 5, (2, 3))
    assert shown == [[1]]
    assert "a model" in plt.gcf().get_suptitle()
    (axes,) = plt.gcf().axes
    grid = cells(axes, 2, 3).flatten(0, 1)
    assert number(to_blocks(grid[:5])).tolist() == [0, 1, 2, 3, 4]
    assert not grid[5].any()


def test_the_default_is_ten_rows_of_twenty_samples(shown):
    visualize_samples(Numbered(), title="a run")
    assert "a run" in plt.gcf().get_suptitle()
    (axes,) = plt.gcf().axes
    grid = cells(axes, 10, 20).flatten(0, 1)
    assert number(to_blocks(grid)).tolist() == list(range(200))


def test_both_z_and_x_are_sampled(shown):
    """The decoder makes each pixel of a block black with p = z / 8 + 1/2 for z ~ N(0, 1)."""
    visualize_samples(known_model(means()))
    (axes,) = plt.gcf().axes
    grid = cells(axes, 10, 20, dpi=300).flatten(0, 1)
    assert ((grid < 0.1) | (grid > 0.9)).float().mean() > 0.99
    share = grid[:, 4:8, :12].unflatten(2, (3, 4)).mean((1, 3))  # black pixels, (200, 3)
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    # The variance of p, plus that of the mean of 16 pixels with E[p (1 - p)] = 1/4 - 1/64.
    assert share.var() == pytest.approx(1 / 64 + (1 / 4 - 1 / 64) / 16, rel=0.25)


def test_samples_are_written_without_a_window(tmp_path, shown):
    visualize_samples(Numbered(), save_path=tmp_path / "samples.png")
    picture = plt.imread(tmp_path / "samples.png")[..., 0]
    assert picture.shape == (880, 1600)
    assert 0.05 < (picture[100:] < 0.5).mean() < 0.5
    assert (picture[:60] < 0.5).any()  # title
    assert plt.get_fignums() == shown == []


@pytest.mark.parametrize("n", [0, 7])
def test_samples_must_fit(n):
    with pytest.raises(ValueError, match=f"{n} samples do not fit into a grid of 2 x 3"):
        visualize_samples(VAE(), num_samples=n, grid_size=(2, 3))
