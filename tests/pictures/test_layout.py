"""Nothing in a picture covers anything else, or is cut off, or stands beside its place."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from drawn import from_blocks, known_model, means, numbered_images, seen
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox

from codebase.pictures import drawing
from codebase.pictures.curves import bounds_against_z, learning_curve
from codebase.pictures.gallery import interpolation, reconstructions
from codebase.pictures.latent import latent_space
from codebase.runs.folder import run_folder
from codebase.runs.metrics import Row, write_metrics
from codebase.settings import Settings
from codebase.visualize import visualize_samples

TITLE = "Latent space: model=vae_z=10_batch_size=200_lr=0.002_run=0000, 20000 steps, synthetic"


@pytest.fixture(scope="module")
def images():
    return numbered_images()


def curve(images):
    rows = [
        Row(step, kind, 80 + 9000 / step, 9 + 900 / step, 71)
        for step in range(100, 20001, 100)
        for kind in ("train", "test", "all test")
    ]
    return learning_curve(rows)


def against_z(images):
    for z in (2, 5, 10, 20, 50):
        folder = run_folder(Settings(z=z, iter_max=300))
        folder.mkdir(parents=True)
        bounds = 90 + 30 / z, z, 90 + 30 / z - z
        write_metrics(folder, [Row(300, name, *bounds) for name in ("test", "all test")])
    return bounds_against_z(Settings(iter_max=300))


def latents(z):
    return lambda images: latent_space(known_model(means(z=z)), images)


def rows_of(number):
    models = {f"{step} steps": known_model(means()) for step in range(number)}
    return lambda images: reconstructions(models, images)


def between(images):
    return interpolation(known_model(means()), images)


def texts(figure) -> dict[str, Bbox]:
    """What is written in a figure, and where. Legends are with their lines."""
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
    """Whether they share more than the edge of a letter."""
    shared = Bbox.intersection(one, other)
    return shared is not None and min(shared.width, shared.height) > 1


@pytest.mark.parametrize(
    "draw",
    [
        *(pytest.param(latents(z), id=f"latent space of {z}") for z in (2, 3, 20, 30)),
        *(pytest.param(rows_of(n), id=f"{n} reconstructions") for n in (1, 6)),
        *(between, curve, against_z),
    ],
)
def test_nothing_that_is_written_is_cut_off_or_covers_anything_else(
    images, draw, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    figure = draw(images)
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


def test_the_images_of_a_grid_have_no_frame_and_their_labels_no_ticks():
    _, axes = drawing.new_figure(3)
    drawing.show_grid(axes, torch.zeros(6, 784), 2, 3)
    drawing.label_cells(axes, ["above", "below"], {0: "left"})
    assert (seen(axes) == 1).all()
    marks = [*axes.xaxis.get_ticklines(), *axes.yaxis.get_ticklines()]
    assert all(mark.get_markersize() == 0 for mark in marks)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 2), (2, 4)])
def test_an_image_is_in_the_middle_of_the_part_of_the_axes_that_is_its_own(rows, columns):
    """Also where there are more of them to the right than upwards: both have one scale."""
    places = torch.zeros(1, 28, 28)
    places[:, 12:16, 12:16] = 1  # the middle of each image is black
    _, axes = drawing.new_figure(6)
    drawing.show_grid(axes, places.expand(rows * columns, 28, 28).flatten(1), rows, columns, 3.0)
    axes.axis("off")
    dark = 1 - seen(axes)[..., 0]
    height, width = dark.shape
    assert axes.get_xlim() == (-3, 3)
    assert axes.get_ylim() == pytest.approx((-3 * rows / columns, 3 * rows / columns))
    assert width / height == pytest.approx(columns / rows, rel=0.01)
    for along, count in ((dark.sum(0), columns), (dark.sum(1), rows)):
        for part, weights in enumerate(np.array_split(along, count)):
            middle = (weights * (np.arange(len(weights)) + 0.5)).sum() / weights.sum()
            assert middle == pytest.approx(len(weights) / 2, abs=2), part


def test_digits_have_the_same_colours_whichever_there_are():
    _, axes = drawing.new_figure(3)
    drawing.scatter_digits(axes, torch.rand(4, 2), torch.tensor([3, 8, 3, 1]))
    axes.figure.draw_without_rendering()
    (dots,) = axes.collections
    colours = [to_rgb(colour) for colour in dots.get_facecolor()]
    assert colours == [to_rgb(f"C{digit}") for digit in (3, 8, 3, 1)]
    legend = axes.get_legend()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        assert to_rgb(handle.get_markerfacecolor()) == to_rgb(f"C{text.get_text()}")


def test_points_have_one_scale_to_the_right_and_upwards():
    _, axes = drawing.new_figure(3)
    drawing.scatter_digits(axes, torch.tensor([[0.0, 0.0], [9.0, 1.0]]), torch.tensor([0, 1]))
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
