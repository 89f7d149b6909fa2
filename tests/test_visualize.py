"""Pictures of a model."""

import matplotlib.pyplot as plt
import pytest
import torch
from codebase.curves import bounds_against_z, finished_runs, learning_curve
from codebase.latent import latent_space
from codebase.seeds import seeded
from pictures import (
    bits,
    cells,
    from_blocks,
    known_model,
    number,
    numbered_images,
    painted,
    to_blocks,
)

from codebase import checkpoint, visualize
from codebase.data import SUBSET_POSITIONS
from codebase.evaluate import SEED, subset_images
from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.visualize import visualize_samples


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def first_of_each_digit(images):
    """The row numbers of the first of the assignment's images of each digit."""
    rows = [(images.test_labels == digit).nonzero().view(-1) for digit in range(10)]
    return torch.tensor([rows[digit][SUBSET_POSITIONS[digit][0]] for digit in range(10)])


def means(seed=0, z=3):
    return torch.randn(10000, z, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


class Numbered(VAE):
    """A model whose draws are numbered."""

    def sample_x(self, batch):
        return from_blocks(bits(torch.arange(batch)))


def test_samples_are_shown_row_by_row_without_a_path(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    visualize_samples(Numbered(), num_samples=5, grid_size=(2, 3), title="a run")
    assert shown == [[1]]
    assert plt.gcf().get_suptitle() == "Samples x ~ p(x | z), z ~ p(z): a run"
    plt.savefig(tmp_path / "shown.png")
    (axes,) = plt.gcf().axes
    grid = cells(tmp_path / "shown.png", axes, 2, 3).flatten(0, 1)
    plt.close("all")
    assert number(to_blocks(grid[:5])).tolist() == [0, 1, 2, 3, 4]
    assert not grid[5].any()


def test_samples_are_draws_of_x_for_draws_of_z(monkeypatch, tmp_path):
    """z ~ N(0, 1) is painted as grey z / 8 + 1/2, and of that many pixels of a block are black."""
    monkeypatch.setattr(plt, "show", lambda: None)
    visualize_samples(known_model(means()), num_samples=200, grid_size=(10, 20))
    (axes,) = plt.gcf().axes
    plt.savefig(tmp_path / "shown.png", dpi=300)
    grid = cells(tmp_path / "shown.png", axes, 10, 20).flatten(0, 1)
    plt.close("all")
    assert ((grid < 0.1) | (grid > 0.9)).float().mean() > 0.99
    share = grid[:, 4:8, :12].unflatten(2, (3, 4)).mean((1, 3))  # of black pixels, (200, 3)
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    # The variance of z / 8, and of the mean of 16 draws of p with p (1 - p) = 1/4 - 1/64.
    assert share.var() == pytest.approx(1 / 64 + (1 / 4 - 1 / 64) / 16, rel=0.25)


def test_samples_are_written_without_a_window(tmp_path):
    visualize_samples(Numbered(), save_path=tmp_path / "samples.png")
    picture = plt.imread(tmp_path / "samples.png")[..., 0]
    assert picture.shape == (880, 1600)
    assert 0.05 < (picture[100:] < 0.5).mean() < 0.5
    assert plt.get_fignums() == []


@pytest.mark.parametrize("n", [0, 7])
def test_samples_must_fit(n):
    with pytest.raises(ValueError, match=f"{n} samples do not fit into a grid of 2 x 3"):
        visualize_samples(VAE(), num_samples=n, grid_size=(2, 3))


def test_reconstructions_are_below_the_images_that_they_are_of(
    images, first_of_each_digit, tmp_path
):
    m = means()
    picture = tmp_path / "reconstructions.png"
    figure = visualize.reconstructions(known_model(m), images, "a run", picture)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Reconstructions: a run"
    assert labels(axes.yaxis) == ["image", "binarized input", "reconstruction"]
    image, binarized, reconstruction = cells(picture, axes, 3, 10)
    for row in (image, binarized):
        assert torch.equal(number(to_blocks(row)), first_of_each_digit)
    grey = image[:, 21:23, 25:27]
    assert ((grey - 128 / 255).abs() < 0.02).all()
    assert (binarized > 0.5).flatten(1).equal(subset_images(images)[::10] > 0.5)
    # The means of x at the mean of z, not draws of either.
    assert (painted(reconstruction)[:, :3] - m[first_of_each_digit]).abs().max() < 0.1


def test_progress_has_a_row_for_each_number_of_steps(images, first_of_each_digit, tmp_path):
    each = {step: means(seed) for seed, step in enumerate([10000, 100, 1000])}
    models = {step: known_model(m) for step, m in each.items()}
    picture = tmp_path / "progress.png"
    figure = visualize.progress(models, images, save_path=picture)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Progress: known"
    steps = ["100 steps", "1000 steps", "10000 steps"]
    assert labels(axes.yaxis) == ["image", "binarized input", *steps]
    image, binarized, *rows = cells(picture, axes, 5, 10)
    assert torch.equal(number(to_blocks(image)), first_of_each_digit)
    assert torch.equal(number(to_blocks(binarized)), first_of_each_digit)
    for step, row in zip((100, 1000, 10000), rows, strict=True):
        assert (painted(row)[:, :3] - each[step][first_of_each_digit]).abs().max() < 0.1


def test_an_interpolation_goes_in_equal_steps_from_one_input_to_the_other(
    images, first_of_each_digit, tmp_path
):
    m = means()
    picture = tmp_path / "interpolation.png"
    figure = visualize.interpolation(known_model(m), images, "a run", picture)
    (axes,) = figure.axes
    grid = cells(picture, axes, 5, 12)
    assert torch.equal(number(to_blocks(grid[:, 0])), first_of_each_digit[0::2])
    assert torch.equal(number(to_blocks(grid[:, 11])), first_of_each_digit[1::2])
    for way, row in enumerate(grid):
        begin, end = m[first_of_each_digit[2 * way]], m[first_of_each_digit[2 * way + 1]]
        for step in range(10):
            expected = begin + step / 9 * (end - begin)
            assert (painted(row[step + 1])[:3] - expected).abs().max() < 0.1
    columns = [int(place) // 30 for place in axes.get_xticks()]
    assert dict(zip(columns, labels(axes.xaxis), strict=True)) == {
        0: "input",
        1: "0",
        10: "1",
        11: "input",
    }
    assert axes.get_xlabel() == "share of the way between the posterior means"


def test_means_are_left_of_draws_of_the_same_latents(tmp_path):
    picture = tmp_path / "samples.png"
    figure = visualize.samples_and_means(known_model(means()), "a run", picture)
    left, right = figure.axes
    assert left.get_title() == "decoder means E[x | z]"
    assert right.get_title() == "draws x ~ p(x | z) of the same z"
    mean, draw = (cells(picture, axes, 10, 10).flatten(0, 1) for axes in (left, right))
    z = painted(mean)[:, :3]
    assert z.mean() == pytest.approx(0, abs=0.2) and z.std() == pytest.approx(1, abs=0.15)
    assert ((draw < 0.2) | (draw > 0.8)).float().mean() > 0.95
    p, share = (x[:, 4:8, :12].unflatten(2, (3, 4)).mean((1, 3)) for x in (mean, draw))
    # Of 300 means of 16 draws each; with other latents the deviation would be 1.7 times that.
    assert (share - p).square().mean() == pytest.approx((0.25 - 1 / 64) / 16, rel=0.3)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's settings and its model, whose folder is empty."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(z=3, iter_max=1000, dataset="numbered")
    checkpoint.run_folder(settings).mkdir(parents=True)
    return settings, VAE(name=settings.name, z_dim=3)


@pytest.mark.slow
def test_every_picture_of_a_run_is_written_into_its_folder(images, run, tmp_path):
    settings, model = run
    folder = checkpoint.run_folder(settings)
    models = {step: VAE(z_dim=3) for step in (100, 300, 500, 2000)} | {1000: model}
    for step, saved in models.items():
        checkpoint.save_model(saved, checkpoint.model_path(folder, step))
    for z in (3, 5):
        path = checkpoint.metrics_path(checkpoint.run_folder(settings._replace(z=z)))
        path.parent.mkdir(exist_ok=True)
        path.write_text("step,images,NELBO,KL,REC\n1000,test,200,10,190\n")
    paths = visualize.write_all(model, images, settings)
    names = ["learning_curve", "reconstructions", "progress", "latent_space", "interpolation"]
    assert paths == [folder / f"{n}.png" for n in (*names, "samples", "bounds_against_z")]
    for path in paths:
        picture = plt.imread(path)
        assert picture.shape[1] == 1600
        assert 0.001 < (picture[..., :3] < 0.5).mean() < 0.9  # neither empty nor black
    assert plt.get_fignums() == []
    # Models that are close to an earlier one, or later than the one that is shown, are left out.
    chosen = {step: models[step] for step in (100, 500, 1000)}
    title, metrics = settings.title, checkpoint.metrics_path(folder)
    (tmp_path / "expected").mkdir()
    expected = [tmp_path / "expected" / path.name for path in paths]
    learning_curve(metrics, title, expected[0])
    visualize.reconstructions(model, images, title, expected[1])
    visualize.progress(chosen, images, title, expected[2])
    latent_space(model, images, title, expected[3])
    visualize.interpolation(model, images, title, expected[4])
    with seeded(SEED, torch.device("cpu")):
        visualize.samples_and_means(model, title, expected[5])
    bounds_against_z(finished_runs(settings), "1000 steps, numbered", expected[6])
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in expected]


@pytest.mark.slow
def test_what_a_folder_lacks_is_not_drawn(images, run):
    settings, model = run
    paths = visualize.write_all(model, images, settings)
    assert sorted(checkpoint.run_folder(settings).iterdir()) == sorted(paths)
    left_out = {"learning_curve.png", "progress.png", "bounds_against_z.png"}
    assert left_out.isdisjoint(path.name for path in paths)
    # Drawn again, in another process for example, they are the same.
    before = [path.read_bytes() for path in paths]
    torch.manual_seed(1)
    assert [path.read_bytes() for path in visualize.write_all(model, images, settings)] == before
