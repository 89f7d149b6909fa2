"""The pictures of a run, and writing them into its folder."""

from itertools import combinations

import matplotlib.pyplot as plt
import pytest
import torch
from drawn import cells, known_model, labels, normal, number, painted

from codebase.bounds import Bounds
from codebase.models.vae import VAE
from codebase.pictures import drawing
from codebase.pictures.gallery import interpolation, learning_curve, reconstructions, write_all
from codebase.pictures.latent import latent_space
from codebase.runs.folder import RunFolder
from codebase.runs.results import Row, write_metrics
from codebase.settings import Settings

pytestmark = pytest.mark.slow
pytest_plugins = ["drawn"]

MEANS = normal(10000, 3).clamp(-3, 3)
TITLE = 2 * "model=vae_nn=v2_z=10_batch_size=500_lr=0.002_lr_schedule=linear_dataset=synthetic "
# The sets of images in a learning curve, and words of their labels.
SETS = {"train": "training", "all test": "all test", "test": "100 test"}


def rows_of_a_run(steps=20_000):
    """The rows of a run, no two of which have a bound in common."""
    rows = []
    for step in range(100, steps + 1, 100):
        kl, rec = 19 - 800 / step, 80 + 12000 / step
        is_measured = step % 4000 == 0 or str(step).strip("0") in ("1", "2", "5")
        sets = SETS if is_measured else ["train"]
        for offset, images in enumerate(sets):
            bounds = Bounds(kl + rec + 0.3 * offset, kl + 0.1 * offset, rec + 0.2 * offset)
            rows.append(Row(step, images, bounds, step / 200))
    return rows


def test_reconstructions_are_below_their_images(images):
    (axes,) = reconstructions(known_model(MEANS), images).axes
    assert labels(axes.yaxis) == ["image", "binarized input", "reconstruction"]
    image, binarized, reconstruction = cells(axes, 3, 10)
    indices = images.subset_indices[::10]
    assert number(image).equal(indices)
    assert ((image[:, 21:23, 25:27] - 128 / 255).abs() < 0.02).all()  # grey
    assert (binarized > 0.5).flatten(1).equal(images.subset_bits[::10] > 0.5)
    # It shows the means of x at the mean of z, not samples.
    assert (painted(reconstruction)[:, :3] - MEANS[indices]).abs().max() < 0.1


def test_an_interpolation_has_equal_steps(images):
    (axes,) = interpolation(known_model(MEANS), images).axes
    grid = cells(axes, 5, 12)
    x = images.subset_bits[::10].view(5, 2, 28, 28)
    assert (grid[:, [0, 11]] > 0.5).equal(x > 0.5)  # inputs, not images
    begin, end = MEANS[images.subset_indices[::10]].view(5, 2, 1, 3).unbind(1)
    expected = begin + torch.arange(10).view(10, 1) / 9 * (end - begin)
    assert (painted(grid[:, 1:11])[..., :3] - expected).abs().max() < 0.1
    columns = [int(position) // 30 for position in axes.get_xticks()]
    named = dict(zip(columns, labels(axes.xaxis), strict=True))
    assert named == {0: "input", 1: "0", 10: "1", 11: "input"}


def test_a_learning_curve_plots_the_rows():
    figure = learning_curve(rows_of_a_run())
    figure.draw_without_rendering()  # This computes the layout.
    above, below = figure.axes[:3], figure.axes[3:]
    for panels, begin in ((above, 0), (below, 5000)):
        for index, (axes, name) in enumerate(zip(panels, ("NELBO", "KL", "REC"), strict=True)):
            assert axes.get_title().startswith("" if begin else name)
            # The line of the training batches is behind the others.
            for line, (images, label) in zip(axes.lines, SETS.items(), strict=True):
                rows = [r for r in rows_of_a_run() if r.images == images and r.step >= begin]
                assert line.get_xydata().tolist() == [[r.step, r.bounds[index]] for r in rows]
                assert label in line.get_label()
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 3 + ["linear"] * 3
    assert "5,000" in below[0].get_xlabel() and "nats" in above[0].get_ylabel()
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [line.get_label() for line in below[1].lines]
    assert len({line.get_color() for line in below[1].lines}) == 3
    # Half a nat can be seen at the end of the curve.
    low, high = below[0].get_ylim()
    assert 0.5 / (high - low) * below[0].get_position().height * figure.get_figheight() > 0.1


def test_a_learning_curve_shows_what_a_short_run_has():
    # The lower panels hold three measurements of the test images, where there are as many.
    *_, subset = learning_curve(rows_of_a_run(1000)).axes[3].lines
    assert subset.get_xdata().tolist() == [200, 500, 1000]
    figure = learning_curve([Row(20, "test", Bounds(300.0, 1.0, 299.0), 1.0)])
    assert [len(axes.lines) for axes in figure.axes] == [1] * 6


@pytest.mark.parametrize(
    "make",
    [
        *(lambda images, z=z: latent_space(known_model(normal(10000, z)), images) for z in (2, 30)),
        lambda images: reconstructions(known_model(MEANS), images),
        lambda images: interpolation(known_model(MEANS), images),
        lambda images: learning_curve(rows_of_a_run()),
    ],
)
def test_no_text_is_cut_off_or_overlaps(images, make):
    figure = make(images)
    drawing.put_title(figure, TITLE)
    assert figure.get_suptitle().split() == TITLE.split()
    figure.draw_without_rendering()
    tight = figure.get_tightbbox()
    assert tight.min.min() > -0.02 and (tight.max - figure.get_size_inches()).max() < 0.02
    # The layout separates the panels, but not their titles, which may be wider.
    parts = [*figure.texts, *figure.legends]
    for axes in figure.axes:
        parts += [axes.title, axes.xaxis.label, axes.yaxis.label, axes.get_legend()]
    boxes = [part.get_window_extent() for part in parts if part]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with an empty folder."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Settings(z=3, iter_max=1000, dataset="numbered"))
    run.path.mkdir(parents=True)
    return run


def test_every_picture_is_written_into_the_folder_with_its_title(images, run, capsys, monkeypatch):
    written, failures = [], []
    monkeypatch.setattr(drawing, "write_figure", lambda *call: written.append(call))
    write_metrics(run, rows_of_a_run())
    write_all(known_model(MEANS), images, run.settings, failures)
    names = "learning_curve", "reconstructions", "latent_space", "interpolation"
    assert [path for _, path in written] == [run.path / f"{name}.png" for name in names]
    assert [len(figure.axes) for figure, _ in written] == [6, 1, 2, 1] and failures == []
    for (figure, path), line in zip(written, capsys.readouterr().out.splitlines(), strict=True):
        title = f"{path.stem.replace('_', ' ').capitalize()}: {run.settings.title}"
        assert line.endswith(f" {path}") and figure.get_suptitle().split() == title.split()
    assert plt.get_fignums() == []


def test_pictures_can_be_pdfs_and_one_without_data_is_left_out(images, run, capsys, monkeypatch):
    for name in ("gallery.reconstructions", "gallery.interpolation", "latent.latent_space"):
        monkeypatch.setattr(f"codebase.pictures.{name}", lambda *_: drawing.new_figure(1)[0])
    failures = []
    write_all(VAE(z_dim=3), images, run.settings, failures, "pdf")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "saved at" not in line]
    assert "learning_curve.pdf" in line and failures == []
    names = [f"{name}.pdf" for name in ("interpolation", "latent_space", "reconstructions")]
    assert sorted(path.name for path in run.path.iterdir()) == names
    assert all(path.read_bytes().startswith(b"%PDF") for path in run.path.iterdir())


def test_all_pictures_are_tried_and_a_missing_function_of_a_student_is_no_failure(
    images, run, capsys, monkeypatch
):
    failures = []
    run.metrics.write_text("step\nx\n")
    monkeypatch.delattr(VAE, "compute_sigmoid_given")
    write_all(VAE(z_dim=3), images, run.settings, failures)
    (failure,) = failures
    assert "metrics.csv" in failure
    first, *others = capsys.readouterr().err.splitlines()
    assert first == f"run_vae.py: {failure}"
    assert len(others) == 3 and all("compute_sigmoid_given" in line for line in others)
