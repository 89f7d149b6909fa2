"""The picture of two hundred samples."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawn import bits, cells, from_blocks, number

from codebase.models.vae import VAE
from codebase.visualize import visualize_samples

pytest_plugins = ["drawn"]


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


@pytest.mark.parametrize("title, count, rows, columns", [("", 5, 2, 3), ("a run", 200, 10, 20)])
def test_samples_are_shown_row_by_row_without_a_path(shown, title, count, rows, columns):
    visualize_samples(Numbered(name="a model"), count, (rows, columns), title=title)
    assert shown == [[1]] and (title or "a model") in plt.gcf().get_suptitle()
    grid = cells(plt.gca(), rows, columns).flatten(0, 1)
    assert number(grid[:count]).tolist() == list(range(count))
    assert not grid[count:].any()


@pytest.mark.parametrize("rows, columns", [(10, 20), (2, 3)])
def test_samples_are_written_without_a_window_and_fill_the_width(tmp_path, shown, rows, columns):
    path = tmp_path / "samples.png"
    visualize_samples(Numbered(), rows * columns, (rows, columns), path)
    picture = plt.imread(path)[..., 0] < 0.5
    assert picture.shape[1] == 1600 and picture[:60].any()  # the title
    columns_with_ink = picture[len(picture) // 5 :].any(0).nonzero()[0]
    assert columns_with_ink[[0, -1]] == pytest.approx([0, 1599], abs=120)
    assert plt.get_fignums() == shown == []


def test_samples_must_fit():
    for n in (0, 7):
        with pytest.raises(ValueError, match=f"{n} .* fit"):
            visualize_samples(VAE(), num_samples=n, grid_size=(2, 3))
