"""Pictures of the bounds of runs."""

import numpy as np
import pytest
from codebase.curves import bounds_against_z, finished_runs, learning_curve, read_metrics
from codebase.errors import DataError
from codebase.files import write_table
from matplotlib.colors import to_hex

from codebase.settings import Settings

PANELS = {"NELBO": 2, "KL(q(z | x) || p(z))": 3, "REC, -log p(x | z)": 4}


def rows_of_a_run():
    """Rows of a run of 20000 steps; no two have a number in common."""
    rows = []
    for step in range(100, 20001, 100):
        kl, rec = 19 - 800 / step, 80 + 12000 / step
        rows.append((step, "train", kl + rec, kl, rec))
        if str(step).strip("0") in ("1", "2", "5"):
            rows.append((step, "test", kl + rec + 0.9, kl + 0.2, rec + 0.7))
            rows.append((step, "all test", kl + rec + 0.5, kl + 0.1, rec + 0.4))
    return rows


def write(path, rows):
    lines = ["step,images,NELBO,KL,REC", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


LABELS = {
    "train": "training, mean of 100 steps",
    "all test": "all test images",
    "test": "100 test images",
}


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("curve") / "metrics.csv", rows_of_a_run())
    return learning_curve(path, "a run", path.with_suffix(".png"))


def test_a_learning_curve_has_the_numbers_of_the_file(curve):
    assert curve.get_suptitle() == "Learning curve: a run"
    above, below = curve.axes[:3], curve.axes[3:]
    assert [axes.get_title() for axes in above] == list(PANELS)
    for panels, begin in ((above, 0), (below, 5000)):
        for axes, column in zip(panels, PANELS.values(), strict=True):
            lines = {line.get_label(): line for line in axes.lines}
            assert set(lines) == set(LABELS.values())
            assert axes.lines[0].get_label() == LABELS["train"]  # below the others
            for images, label in LABELS.items():
                rows = [row for row in rows_of_a_run() if row[1] == images and row[0] >= begin]
                points = [[row[0], row[column]] for row in rows]
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
    (legend,) = curve.legends
    colours = {line.get_label(): to_hex(line.get_color()) for line in curve.axes[4].lines}
    named = zip(legend.get_texts(), legend.legend_handles, strict=True)
    assert {text.get_text(): to_hex(line.get_color()) for text, line in named} == colours
    assert len(set(colours.values())) == 3


def test_a_run_too_short_for_a_mean_of_training_has_its_test_points(tmp_path):
    path = write(tmp_path / "metrics.csv", [(20, "test", 300.0, 1.0, 299.0)])
    figure = learning_curve(path)
    assert [len(axes.lines) for axes in figure.axes] == [1] * 6
    assert figure.get_suptitle() == f"Learning curve: {tmp_path.name}"


def test_metrics_are_read_as_numbers(tmp_path):
    rows = rows_of_a_run()
    assert read_metrics(write(tmp_path / "metrics.csv", rows)) == rows


@pytest.mark.parametrize(
    "content",
    [
        b"step,images,NELBO\n100,train\n",
        b"step,images\n\xff,\xfe\n",
        b"step,images,NELBO,KL,REC\n100,train,1,2\n",
        b"step,images,NELBO,KL,REC\n100,train,1,2,x\n",
        b"step,images,NELBO,KL,REC\n,train,1,2,3\n",
    ],
)
def test_damaged_metrics_are_named(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.csv is damaged"):
        learning_curve(tmp_path / "metrics.csv")


def test_bounds_against_z_are_points_of_runs_and_lines_of_means(tmp_path):
    rows = [
        (10, "test", 100.4, 19.4, 81.0),
        (10, "all test", 99.7, 19.3, 80.4),
        (2, "test", 136.5, 6.5, 130.0),
        (2, "all test", 135.4, 6.4, 129.0),
        (10, "test", 101.0, 19.0, 82.0),
        (10, "all test", 100.1, 19.1, 81.0),
    ]
    figure = bounds_against_z(rows, "mnist, 20000 steps", tmp_path / "bounds.png")
    assert figure.get_suptitle() == "Bounds against z: mnist, 20000 steps"
    assert [axes.get_title() for axes in figure.axes] == list(PANELS)
    (legend,) = figure.legends
    named = zip(legend.get_texts(), legend.legend_handles, strict=True)
    colours = {text.get_text(): to_hex(line.get_color()) for text, line in named}
    assert set(colours) == {LABELS["test"], LABELS["all test"]}
    for axes, column in zip(figure.axes, PANELS.values(), strict=True):
        assert axes.get_xlabel() == "z, latent dimensions"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "10"]
        assert axes.get_xticks().tolist() == [2, 10]
        for images in ("test", "all test"):
            lines = [
                line for line in axes.lines if to_hex(line.get_color()) == colours[LABELS[images]]
            ]
            (points,) = [line for line in lines if line.get_linestyle() == "None"]
            (means,) = [line for line in lines if line.get_linestyle() != "None"]
            assert points.get_marker() not in ("", "None")
            expected = [[r[0], r[column]] for r in sorted(rows) if r[1] == images]
            assert points.get_xydata().tolist() == expected
            two, ten, other_ten = (point[1] for point in expected)
            assert means.get_ydata().tolist() == pytest.approx([two, (ten + other_ten) / 2])
            assert means.get_xdata().tolist() == [2, 10]
        numbers = {(text.xy[0], text.get_text()) for text in axes.texts}
        of_two = f"{rows[2][column]:.1f}"
        of_ten = f"{np.mean([rows[0][column], rows[4][column]]):.1f}"
        assert numbers == {(2, of_two), (10, of_ten)}


def test_runs_that_differ_in_z_and_number_only_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(z=10, lr=0.002, iter_max=300)
    bounds = iter(range(1000))
    expected = []

    def write_run(name, wanted):
        rows = [
            (step, images, *(float(next(bounds)) for _ in range(3)))
            for step in (200, 300)
            for images in ("train", "test", "all test")
        ]
        path = tmp_path / "checkpoints" / name / "metrics.csv"
        path.parent.mkdir(parents=True)
        write_table(path, [("step", "images", "NELBO", "KL", "REC"), *rows])
        if wanted is not None:
            expected.extend((wanted, *row[1:]) for row in rows[4:])

    write_run(settings.name, 10)
    write_run(settings._replace(run=7).name, 10)
    write_run(settings._replace(z=2).name, 2)
    write_run(settings._replace(z=100).name, 100)
    write_run(settings._replace(lr=0.001).name, None)
    write_run(settings._replace(batch_size=50).name, None)
    write_run(settings._replace(dataset="synthetic").name, None)
    write_run(settings.name + ".1", None)
    assert sorted(finished_runs(settings)) == sorted(expected)
