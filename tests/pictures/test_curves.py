"""Pictures of the bounds of runs."""

from statistics import fmean

import pytest
from drawn import labels
from matplotlib.colors import to_hex

from codebase.pictures.curves import bounds_against_z, learning_curve
from codebase.runs.folder import run_folder
from codebase.runs.metrics import Row, write_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError

PANELS = {"NELBO": "nelbo", "KL(q(z | x) || p(z))": "kl", "REC, -log p(x | z)": "rec"}
LABELS = {
    "train": "training, mean of 100 steps",
    "all test": "all test images",
    "test": "100 test images",
}


def rows_of_a_run():
    """Rows of a run of 20000 steps; no two have a number in common."""
    rows = []
    for step in range(100, 20001, 100):
        kl, rec = 19 - 800 / step, 80 + 12000 / step
        rows.append(Row(step, "train", kl + rec, kl, rec, step / 200))
        if str(step).strip("0") in ("1", "2", "5"):
            rows.append(Row(step, "test", kl + rec + 0.9, kl + 0.2, rec + 0.7, step / 200))
            rows.append(Row(step, "all test", kl + rec + 0.5, kl + 0.1, rec + 0.4, step / 200))
    return rows


def colours_in_the_legend(figure):
    (legend,) = figure.legends
    named = zip(legend.get_texts(), legend.legend_handles, strict=True)
    return {text.get_text(): to_hex(line.get_color()) for text, line in named}


@pytest.fixture(scope="module")
def curve():
    figure = learning_curve(rows_of_a_run())
    figure.draw_without_rendering()  # which lays it out
    return figure


def test_a_learning_curve_has_the_numbers_of_the_rows(curve):
    above, below = curve.axes[:3], curve.axes[3:]
    assert [axes.get_title() for axes in above] == list(PANELS)
    for panels, begin in ((above, 0), (below, 5000)):
        for axes, bound in zip(panels, PANELS.values(), strict=True):
            lines = {line.get_label(): line for line in axes.lines}
            assert set(lines) == set(LABELS.values())
            assert axes.lines[0].get_label() == LABELS["train"]  # below the others
            for images, label in LABELS.items():
                rows = [r for r in rows_of_a_run() if r.images == images and r.step >= begin]
                points = [[row.step, getattr(row, bound)] for row in rows]
                assert lines[label].get_xydata().tolist() == points
    assert [axes.get_xscale() for axes in curve.axes] == ["log"] * 3 + ["linear"] * 3
    assert above[0].get_xlabel() == "training steps"
    assert below[0].get_xlabel() == "steps, the last three quarters"
    assert above[0].get_ylabel() == below[0].get_ylabel() == "nats per image"


def test_the_end_of_a_learning_curve_shows_the_gap_between_training_and_test(curve):
    axes = curve.axes[3]
    low, high = axes.get_ylim()
    inches = axes.get_position().height * curve.get_figheight()
    assert 0.5 / (high - low) * inches > 0.1  # half a nat can be seen


def test_the_legend_of_a_learning_curve_names_its_lines(curve):
    colours = {line.get_label(): to_hex(line.get_color()) for line in curve.axes[4].lines}
    assert colours_in_the_legend(curve) == colours
    assert len(set(colours.values())) == 3


def test_a_run_too_short_for_a_mean_of_training_has_its_test_points():
    figure = learning_curve([Row(20, "test", 300.0, 1.0, 299.0)])
    assert [len(axes.lines) for axes in figure.axes] == [1] * 6
    assert list(colours_in_the_legend(figure)) == [LABELS["test"]]


def test_rows_that_are_all_early_are_in_the_upper_panels_only():
    """As those of training, where another program's longer run was measured in the folder."""
    early = [Row(step, "train", 100, 20, 80) for step in (100, 200)]
    late = [Row(1000, images, 90, 20, 70) for images in ("test", "all test")]
    figure = learning_curve([*early, *late])
    upper, lower = figure.axes[0].lines, figure.axes[3].lines
    assert sorted(len(line.get_xdata()) for line in upper) == [1, 1, 2]
    assert sorted(len(line.get_xdata()) for line in lower) == [0, 1, 1]


def test_a_run_without_rows_has_no_learning_curve():
    assert learning_curve([]) is None


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finish(settings, step, *bounds, images=("test", "all test")):
    """Write the folder of a run with bounds on these images after that step."""
    folder = run_folder(settings)
    folder.mkdir(parents=True)
    write_metrics(
        folder, [Row(step, name, *each) for name, each in zip(images, bounds, strict=True)]
    )
    return folder


OF_TWO = [(136.5, 6.5, 130.0), (135.4, 6.4, 129.0)]
OF_TEN = [(100.4, 19.4, 81.0), (99.7, 19.3, 80.4)]
OF_ANOTHER_TEN = [(101.0, 19.0, 82.0), (100.1, 19.1, 81.0)]


def test_bounds_against_z_are_points_of_runs_and_lines_of_means():
    settings = Settings(z=10, iter_max=300)
    finish(settings, 300, *OF_TEN)
    finish(settings._replace(z=2), 300, *OF_TWO)
    finish(settings._replace(run=7), 300, *OF_ANOTHER_TEN)
    figure = bounds_against_z(settings)
    assert [axes.get_title() for axes in figure.axes] == list(PANELS)
    colours = colours_in_the_legend(figure)
    assert set(colours) == {LABELS["test"], LABELS["all test"]}
    assert len(set(colours.values())) == 2
    for column, axes in enumerate(figure.axes):
        assert axes.get_xlabel() == "z, latent dimensions"
        assert labels(axes.xaxis) == ["2", "10"]
        assert axes.get_xticks().tolist() == [2, 10] and not axes.get_xticks(minor=True).size
        assert axes.get_ylabel() == ("" if column else "nats per image")
        assert to_hex(axes.lines[-1].get_color()) == colours[LABELS["test"]]  # on top
        for row, images in enumerate(("test", "all test")):
            colour = colours[LABELS[images]]
            lines = [line for line in axes.lines if to_hex(line.get_color()) == colour]
            (points,) = [line for line in lines if line.get_linestyle() == "None"]
            (means,) = [line for line in lines if line.get_linestyle() != "None"]
            assert points.get_marker() not in ("", "None")
            two, *ten = (runs[row][column] for runs in (OF_TWO, OF_TEN, OF_ANOTHER_TEN))
            expected = [[2, two], *([10, bound] for bound in sorted(ten))]
            assert sorted(points.get_xydata().tolist()) == expected
            assert means.get_xdata().tolist() == [2, 10]
            assert means.get_ydata().tolist() == pytest.approx([two, fmean(ten)])


def shown(settings):
    """The places of the points, and how many points there are at each."""
    points = bounds_against_z(settings).axes[0].lines[-1].get_xdata().tolist()
    return {z: points.count(z) for z in points}


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_runs_that_differ_in_z_and_number_only_are_found(schedule):
    settings = Settings(z=10, lr=0.002, lr_schedule=schedule, iter_max=300)
    for other in (
        settings,
        settings._replace(run=7),
        settings._replace(run=12345),
        settings._replace(z=2),
        settings._replace(z=100, run=3),
        # Not these:
        settings._replace(z=2, lr=0.001),
        settings._replace(z=2, batch_size=50),
        settings._replace(z=5, dataset="synthetic"),
        settings._replace(z=6, nn="v2"),
    ):
        finish(other, 300, *OF_TEN)
    finish(settings._replace(z=7), 200, *OF_TEN)  # has not come to its end
    finish(settings._replace(z=8), 300, OF_TEN[0], images=["test"])
    aside = run_folder(settings._replace(z=9))
    finish(settings._replace(z=9), 300, *OF_TEN).rename(f"{aside}.1")
    assert shown(settings) == {10: 3, 2: 1, 100: 1}
    # A falling rate makes runs of another number of steps other runs.
    finish(settings._replace(z=11, iter_max=400), 300, *OF_TEN)
    assert (11 in shown(settings)) == (schedule == "constant")


def test_runs_of_one_z_are_no_picture():
    settings = Settings(iter_max=300)
    assert bounds_against_z(settings) is None
    finish(settings, 300, *OF_TEN)
    finish(settings._replace(run=1), 300, *OF_ANOTHER_TEN)
    assert bounds_against_z(settings) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"step,images,NELBO\n100,train\n",
        b"step,images\n\xff,\xfe\n",
        b"step,images,NELBO,KL,REC,seconds\n100,train,1,2\n",
        b"step,images,NELBO,KL,REC,seconds\n100,train,1,2,x,3\n",
        b"step,images,NELBO,KL,REC,seconds\n,train,1,2,3,4\n",
    ],
)
def test_the_damaged_numbers_of_a_run_are_named(content):
    settings = Settings(iter_max=300)
    folder = finish(settings._replace(z=3), 300, *OF_TEN)
    (folder / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"z=03_run=0000/metrics\.csv is damaged"):
        bounds_against_z(settings)
