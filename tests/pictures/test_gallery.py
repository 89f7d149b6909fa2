"""The pictures of a run, and what of them is written into its folder."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawn import (
    cells,
    known_model,
    labels,
    means,
    number,
    numbered_images,
    painted,
    to_blocks,
)

from codebase.data import SUBSET_POSITIONS
from codebase.evaluate import subset_images
from codebase.models.vae import VAE
from codebase.pictures import drawing
from codebase.pictures.curves import bounds_against_z, learning_curve
from codebase.pictures.gallery import interpolation, progress, reconstructions, write_all
from codebase.pictures.latent import latent_space
from codebase.runs.checkpoint import save_model
from codebase.runs.folder import model_path, run_folder
from codebase.runs.metrics import Row, read_metrics, write_metrics
from codebase.settings import Settings


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def first_of_each_digit(images):
    """The row numbers of the first of the assignment's images of each digit."""
    rows = [(images.test_labels == digit).nonzero().view(-1) for digit in range(10)]
    return torch.tensor([rows[digit][SUBSET_POSITIONS[digit][0]] for digit in range(10)])


def test_reconstructions_are_below_the_images_that_they_are_of(images, first_of_each_digit):
    models = {"one": means(0), "another": means(1)}
    figure = reconstructions({name: known_model(m) for name, m in models.items()}, images)
    (axes,) = figure.axes
    assert labels(axes.yaxis) == ["image", "binarized input", "one", "another"]
    image, binarized, *rows = cells(axes, 4, 10)
    for row in (image, binarized):
        assert torch.equal(number(to_blocks(row)), first_of_each_digit)
    grey = image[:, 21:23, 25:27]
    assert ((grey - 128 / 255).abs() < 0.02).all()
    assert (binarized > 0.5).flatten(1).equal(subset_images(images)[::10] > 0.5)
    # The means of x at the mean of z, not draws of either.
    for row, m in zip(rows, models.values(), strict=True):
        assert (painted(row)[:, :3] - m[first_of_each_digit]).abs().max() < 0.1


def test_an_interpolation_goes_in_equal_steps_from_one_input_to_the_other(
    images, first_of_each_digit
):
    m = means()
    (axes,) = interpolation(known_model(m), images).axes
    grid = cells(axes, 5, 12)
    assert torch.equal(number(to_blocks(grid[:, 0])), first_of_each_digit[0::2])
    assert torch.equal(number(to_blocks(grid[:, 11])), first_of_each_digit[1::2])
    x = subset_images(images)[::10].view(5, 2, 28, 28)
    assert (grid[:, [0, 11]] > 0.5).equal(x > 0.5)  # the inputs, not the images
    for way, row in enumerate(grid):
        begin, end = m[first_of_each_digit[2 * way]], m[first_of_each_digit[2 * way + 1]]
        for step in range(10):
            expected = begin + step / 9 * (end - begin)
            assert (painted(row[step + 1])[:3] - expected).abs().max() < 0.1
    columns = [int(place) // 30 for place in axes.get_xticks()]
    named = dict(zip(columns, labels(axes.xaxis), strict=True))
    assert named == {0: "input", 1: "0", 10: "1", 11: "input"}
    assert axes.get_xlabel() == "share of the way between the posterior means"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings of a run, whose folder is empty."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(z=3, iter_max=1000, dataset="numbered")
    run_folder(settings).mkdir(parents=True)
    return settings


def test_progress_has_a_row_for_models_far_enough_apart(images, first_of_each_digit, settings):
    """Each is of at least five times the steps of the one above, and the last one is the run's."""
    each = {step: means(seed) for seed, step in enumerate([1000, 100, 499, 500, 900, 2000])}
    models = {step: known_model(m) for step, m in each.items()}
    for step, model in models.items():
        save_model(model, model_path(run_folder(settings), step))
    (axes,) = progress(models[1000], images, settings).axes
    steps = ["100 steps", "500 steps", "1000 steps"]
    assert labels(axes.yaxis) == ["image", "binarized input", *steps]
    image, binarized, *rows = cells(axes, 5, 10)
    assert torch.equal(number(to_blocks(image)), first_of_each_digit)
    assert torch.equal(number(to_blocks(binarized)), first_of_each_digit)
    for step, row in zip((100, 500, 1000), rows, strict=True):
        assert (painted(row)[:, :3] - each[step][first_of_each_digit]).abs().max() < 0.1
    assert models[1000].enc.m.equal(each[1000])  # the model itself is as it was


def test_a_run_without_earlier_models_has_no_progress(images, settings):
    model = VAE(z_dim=3)
    assert progress(model, images, settings) is None
    for step in (1000, 2000):
        save_model(model, model_path(run_folder(settings), step))
    assert progress(model, images, settings) is None


ALWAYS = ["reconstructions", "latent_space", "interpolation"]


def fill(settings):
    """Give the run what all its pictures need, another run included."""
    folder = run_folder(settings)
    save_model(VAE(z_dim=3), model_path(folder, 100))
    kinds = ("train", "test", "all test")
    write_metrics(folder, [Row(1000, kind, 200 + i, 10, 190 + i) for i, kind in enumerate(kinds)])
    beside = run_folder(settings._replace(z=5, run=1))
    beside.mkdir()
    write_metrics(beside, [Row(1000, kind, 150, 20, 130) for kind in kinds])


@pytest.mark.slow
def test_every_picture_is_written_into_the_folder_and_named(images, settings, capsys, tmp_path):
    folder, model, failures = run_folder(settings), VAE(z_dim=3), []
    fill(settings)
    write_all(model, images, settings, failures)
    figures = {
        "Learning curve": learning_curve(read_metrics(folder)),
        "Reconstructions": reconstructions({"reconstruction": model}, images),
        "Progress": progress(model, images, settings),
        "Latent space": latent_space(model, images),
        "Interpolation": interpolation(model, images),
        "Bounds against z": bounds_against_z(settings),
    }
    paths = [folder / f"{name.lower().replace(' ', '_')}.png" for name in figures]
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"Visualization saved at {path}" for path in paths]
    assert failures == [] and said.err == ""
    assert sorted(folder.glob("*.png")) == sorted(paths)
    assert plt.get_fignums() == []
    for path, (name, figure) in zip(paths, figures.items(), strict=True):
        picture = plt.imread(path)
        assert picture.shape[1] == 1600
        assert 0.001 < (picture[..., :3] < 0.5).mean() < 0.9  # neither empty nor black
        of_one_run = name != "Bounds against z"
        title = f"{name}: {f'{settings.name}, ' if of_one_run else ''}1000 steps, numbered"
        drawing.put_title(figure, title)
        drawing.write_figure(figure, tmp_path / "expected.png")
        assert path.read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.slow
def test_what_a_folder_lacks_is_not_drawn_which_is_said(images, settings, capsys):
    folder, model, failures = run_folder(settings), VAE(z_dim=3), []
    write_all(model, images, settings, failures)
    lines = [line for line in capsys.readouterr().out.splitlines() if "saved at" not in line]
    assert lines == [
        "No learning_curve.png: it needs rows in metrics.csv",
        "No progress.png: it needs an earlier checkpoint, as with a smaller --iter_save",
        "No bounds_against_z.png: it needs runs of another --z beside this one",
    ]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(ALWAYS)
    assert failures == []
    # Drawn again, in another process for example, they are the same.
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    torch.manual_seed(1)
    write_all(model, images, settings, failures)
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before


@pytest.mark.slow
def test_a_picture_that_fails_is_told_and_the_others_are_drawn(images, settings, capsys):
    folder, failures = run_folder(settings), []
    fill(settings)
    (folder / "metrics.csv").write_text("step\nx\n")
    model_path(folder, 100).write_bytes(b"cut short")
    write_all(VAE(z_dim=3), images, settings, failures)
    assert sorted(path.stem for path in folder.glob("*.png")) == sorted(ALWAYS)
    metrics, model, metrics_again = failures
    assert metrics == metrics_again and metrics.startswith(f"{folder / 'metrics.csv'} is damaged")
    assert model.startswith(f"{model_path(folder, 100)} is cut short, damaged or no checkpoint")
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"run_vae.py: {failure}" for failure in failures]
    assert len(said.out.splitlines()) == len(ALWAYS)


@pytest.mark.slow
def test_a_solution_without_means_of_pixels_loses_only_the_pictures_of_them(
    images, settings, capsys, monkeypatch
):
    folder, failures = run_folder(settings), []
    fill(settings)
    monkeypatch.delattr(VAE, "compute_sigmoid_given")
    write_all(VAE(z_dim=3), images, settings, failures)
    drawn = sorted(path.stem for path in folder.glob("*.png"))
    assert drawn == ["bounds_against_z", "learning_curve"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("codebase.models.vae has no compute_sigmoid_given" in line for line in lines)
    assert failures == []  # what is not written yet is no failure
