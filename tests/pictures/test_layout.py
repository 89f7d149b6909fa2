"""The layout of figures: no text overlaps or is cut off, and images are in their positions."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from drawn import from_blocks, known_model, means, numbered_images, seen
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox

from codebase.bounds import Bounds
from codebase.pictures import drawing
from codebase.pictures.gallery import interpolation, learning_curve, reconstructions
from codebase.pictures.latent import latent_space
from codebase.runs.results import Row
from codebase.visualize import visualize_samples

TITLE = "Latent space: z = 10, batch_size = 200, lr = 0.002, run 0, 20,000 steps, synthetic digits"


@pytest.fixture(scope="module")
def images():
    return numbered_images()


def curve(images):
    rows = [
        Row(step, kind, Bounds(80 + 9000 / step, 9 + 900 / step, 71), 1.0)
        for step in range(100, 20001, 100)
        for kind in ("train", "test", "all test")
    ]
    return learning_curve(rows)


def latent_spaces(z):
    return lambda images: latent_space(known_model(means(z=z)), images)


def reconstruction(images):
    return reconstructions(known_model(means()), images)


def interpolations(images):
    return interpolation(known_model(means()), images)


def texts(figure) -> dict[str, Bbox]:
    """The boxes of all texts in a figure, and of its legends."""
    found = {}
    for number, axes in enumerate(figure.axes):
        parts = {"title": axes.title, "x": axes.xaxis.label, "y": axes.yaxis.label}
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    parts[f"{name} {tick.get_loc()}"] = tick.label1
        found |= {f"{number} {name}": part for name, part in parts.items() if part.get_text()}
        if axes.get_legend():
            found[f"{number} legend"] = axes.get_legend()
    found |= {f"legend {number}": legend for number, legend in enumerate(figure.legends)}
    found |= {text.get_text(): text for text in figure.texts}
    return {name: part.get_window_extent() for name, part in found.items()}


def overlap(one: Bbox, other: Bbox) -> bool:
    """Whether two boxes share more than the edge of a letter."""
    shared = Bbox.intersection(one, other)
    return shared is not None and min(shared.width, shared.height) > 1


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(latent_spaces(z), id=f"latent space of {z}") for z in (2, 3, 20, 30)),
        *(reconstruction, interpolations, curve),
    ],
)
def test_no_text_is_cut_off_or_overlaps(images, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figure = make(images)
    drawing.put_title(figure, TITLE)
    figure.draw_without_rendering()
    written = texts(figure)
    inside = figure.bbox.padded(2)
    for name, box in written.items():
        assert inside.contains(*box.min) and inside.contains(*box.max), name
    for (name, one), (other_name, other) in combinations(written.items(), 2):
        assert not overlap(one, other), (name, other_name)
    panels = [axes.get_window_extent() for axes in figure.axes]
    for panel in panels:
        assert not any(overlap(panel, other) for other in panels if other is not panel)
        for name, box in written.items():
            assert not overlap(panel, box), name


def test_a_grid_has_no_frame_and_no_ticks():
    _, axes = drawing.new_figure(3)
    drawing.show_grid(axes, torch.zeros(6, 784), 2, 3)
    drawing.label_cells(axes, ["above", "below"], {0: "left"})
    assert (seen(axes) == 1).all()
    marks = [*axes.xaxis.get_ticklines(), *axes.yaxis.get_ticklines()]
    assert all(mark.get_markersize() == 0 for mark in marks)


def test_each_image_of_a_grid_with_axes_is_in_the_middle_of_its_cell():
    images = torch.zeros(1, 28, 28)
    images[:, 12:16, 12:16] = 1  # The middle of each image is black.
    _, axes = drawing.new_figure(6)
    drawing.show_grid(axes, images.expand(16, 28, 28).flatten(1), 4, 4, 3.0)
    axes.axis("off")
    dark = 1 - seen(axes)[..., 0]
    assert axes.get_xlim() == axes.get_ylim() == (-3, 3)
    for axis in (0, 1):
        for part, weights in enumerate(np.array_split(dark.sum(axis), 4)):
            middle = (weights * (np.arange(len(weights)) + 0.5)).sum() / weights.sum()
            assert middle == pytest.approx(len(weights) / 2, abs=2), part


def test_the_colour_of_a_digit_does_not_depend_on_the_other_digits():
    _, axes = drawing.new_figure(3)
    drawing.scatter_points(axes, torch.rand(4, 2), torch.tensor([3, 8, 3, 1]))
    axes.figure.draw_without_rendering()
    (dots,) = axes.collections
    colours = [to_rgb(colour) for colour in dots.get_facecolor()]
    assert colours == [to_rgb(drawing.COLOURS[digit]) for digit in (3, 8, 3, 1)]
    legend = axes.get_legend()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        expected = to_rgb(drawing.COLOURS[int(text.get_text())])
        assert to_rgb(handle.get_markerfacecolor()) == expected


def test_more_labels_repeat_the_ten_colours_and_points_without_labels_have_one():
    _, (left, right) = drawing.new_figure(3, 1, 2)
    drawing.scatter_points(left, torch.rand(26, 2), torch.arange(1, 27))
    drawing.scatter_points(right, torch.rand(26, 2), torch.empty(0))
    left.figure.draw_without_rendering()
    colours = [to_rgb(colour) for colour in left.collections[0].get_facecolor()]
    assert colours == [to_rgb(drawing.COLOURS[label % 10]) for label in range(1, 27)]
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert texts == [str(label) for label in range(1, 27)]
    assert len(right.collections[0].get_facecolor()) == 1
    assert right.get_legend() is None


def test_points_have_one_scale_on_both_axes():
    _, axes = drawing.new_figure(3)
    drawing.scatter_points(axes, torch.tensor([[0.0, 0.0], [9.0, 1.0]]), torch.tensor([0, 1]))
    axes.figure.draw_without_rendering()
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    assert x1 - x0 == pytest.approx(y1 - y0)


@pytest.mark.parametrize(("rows", "columns"), [(10, 20), (2, 3), (20, 10)])
def test_samples_fill_the_width_of_their_picture(tmp_path, rows, columns):
    model = known_model(means())
    model.sample_x = lambda batch: from_blocks(torch.ones(batch, 35))
    path = tmp_path / "samples.png"
    visualize_samples(model, rows * columns, (rows, columns), path)
    picture = plt.imread(path)[..., 0]
    below_the_title = picture[len(picture) // 5 :]
    assert (below_the_title < 0.5).any(0).mean() > 0.85
