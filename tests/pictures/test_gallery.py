"""The pictures of a run, and writing them into its folder."""

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

from codebase.bounds import Bounds
from codebase.data import SUBSET_POSITIONS
from codebase.models.vae import VAE
from codebase.pictures import drawing
from codebase.pictures.gallery import interpolation, learning_curve, reconstructions, write_all
from codebase.pictures.latent import latent_space
from codebase.runs.folder import RunFolder
from codebase.runs.results import Row, read_metrics, write_metrics
from codebase.settings import Settings


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def first_of_each_digit(images):
    """The indices of the first image of each digit in the subset."""
    indices = [(images.test_labels == digit).nonzero().view(-1) for digit in range(10)]
    return torch.tensor([indices[digit][SUBSET_POSITIONS[digit][0]] for digit in range(10)])


def test_reconstructions_are_below_their_images(images, first_of_each_digit):
    m = means()
    (axes,) = reconstructions(known_model(m), images).axes
    assert labels(axes.yaxis) == ["image", "binarized input", "reconstruction"]
    image, binarized, reconstruction = cells(axes, 3, 10)
    for row in (image, binarized):
        assert torch.equal(number(to_blocks(row)), first_of_each_digit)
    grey = image[:, 21:23, 25:27]
    assert ((grey - 128 / 255).abs() < 0.02).all()
    assert (binarized > 0.5).flatten(1).equal(images.subset_bits[::10] > 0.5)
    # It shows the means of x at the mean of z, not samples.
    assert (painted(reconstruction)[:, :3] - m[first_of_each_digit]).abs().max() < 0.1


def test_an_interpolation_has_equal_steps(images, first_of_each_digit):
    m = means()
    (axes,) = interpolation(known_model(m), images).axes
    grid = cells(axes, 5, 12)
    assert torch.equal(number(to_blocks(grid[:, 0])), first_of_each_digit[0::2])
    assert torch.equal(number(to_blocks(grid[:, 11])), first_of_each_digit[1::2])
    x = images.subset_bits[::10].view(5, 2, 28, 28)
    assert (grid[:, [0, 11]] > 0.5).equal(x > 0.5)  # inputs, not images
    for pair, row in enumerate(grid):
        begin, end = m[first_of_each_digit[2 * pair]], m[first_of_each_digit[2 * pair + 1]]
        for step in range(10):
            expected = begin + step / 9 * (end - begin)
            assert (painted(row[step + 1])[:3] - expected).abs().max() < 0.1
    columns = [int(position) // 30 for position in axes.get_xticks()]
    named = dict(zip(columns, labels(axes.xaxis), strict=True))
    assert named == {0: "input", 1: "0", 10: "1", 11: "input"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings of a run with an empty folder."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(z=3, iter_max=1000, dataset="numbered")
    RunFolder(settings).path.mkdir(parents=True)
    return settings


ALWAYS = ["reconstructions", "latent_space", "interpolation"]


def fill(settings):
    """Write the file that the pictures of a run need."""
    write_metrics(RunFolder(settings), [Row(1000, "train", Bounds(200, 10, 190), 1.0)])


@pytest.mark.slow
def test_every_picture_is_written_into_the_folder(images, settings, capsys, tmp_path):
    folder, model, failures = RunFolder(settings), VAE(z_dim=3), []
    fill(settings)
    write_all(model, images, settings, failures)
    figures = {
        "Learning curve": learning_curve(read_metrics(folder)),
        "Reconstructions": reconstructions(model, images),
        "Latent space": latent_space(model, images),
        "Interpolation": interpolation(model, images),
    }
    paths = [folder.path / f"{name.lower().replace(' ', '_')}.png" for name in figures]
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"Visualization saved at {path}" for path in paths]
    assert failures == [] and said.err == ""
    assert sorted(folder.path.glob("*.png")) == sorted(paths)
    assert plt.get_fignums() == []
    for path, (name, figure) in zip(paths, figures.items(), strict=True):
        picture = plt.imread(path)
        assert picture.shape[1] == 1600
        assert 0.001 < (picture[..., :3] < 0.5).mean() < 0.9
        drawing.put_title(figure, f"{name}: {settings.title}")
        drawing.write_figure(figure, tmp_path / "expected.png")
        assert path.read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.slow
def test_every_picture_can_be_a_pdf(images, settings):
    fill(settings)
    write_all(VAE(z_dim=3), images, settings, [], "pdf")
    written = sorted(RunFolder(settings).path.glob("*.*[!v]"))
    assert [path.name for path in written] == sorted(
        f"{name}.pdf" for name in ("learning_curve", *ALWAYS)
    )
    assert all(path.read_bytes().startswith(b"%PDF") for path in written)


@pytest.mark.slow
def test_a_picture_without_data_is_left_out_with_a_message(images, settings, capsys):
    folder, model, failures = RunFolder(settings).path, VAE(z_dim=3), []
    write_all(model, images, settings, failures)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "saved at" not in line]
    assert "learning_curve.png" in line
    assert sorted(path.stem for path in folder.iterdir()) == sorted(ALWAYS)
    assert failures == []
    # The pictures do not depend on the random state.
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    torch.manual_seed(1)
    write_all(model, images, settings, failures)
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before


@pytest.mark.slow
def test_a_picture_that_fails_does_not_stop_the_others(images, settings, capsys):
    folder, failures = RunFolder(settings), []
    folder.metrics.write_text("step\nx\n")
    write_all(VAE(z_dim=3), images, settings, failures)
    written = sorted(path.stem for path in folder.path.glob("*.png"))
    assert written == sorted(ALWAYS)
    (failure,) = failures
    assert str(folder.metrics) in failure
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"run_vae.py: {failure}"]
    assert len(said.out.splitlines()) == len(written)


@pytest.mark.slow
def test_a_solution_without_compute_sigmoid_given_loses_only_its_pictures(
    images, settings, capsys, monkeypatch
):
    folder, failures = RunFolder(settings).path, []
    fill(settings)
    monkeypatch.delattr(VAE, "compute_sigmoid_given")
    write_all(VAE(z_dim=3), images, settings, failures)
    assert [path.stem for path in folder.glob("*.png")] == ["learning_curve"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(ALWAYS)
    assert all("compute_sigmoid_given" in line for line in lines)
    assert failures == []  # A missing function of a student is not a failure.
