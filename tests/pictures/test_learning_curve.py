"""The learning curve of a run."""

import pytest
from matplotlib.colors import to_hex

from codebase.bounds import Bounds
from codebase.pictures.gallery import learning_curve
from codebase.runs.results import Row

PANELS = {"NELBO": "nelbo", "KL(q(z | x) || p(z))": "kl", "REC, -log p(x | z)": "rec"}
LABELS = {
    "train": "training batches, mean of 100 steps",
    "all test": "all test images",
    "test": "100 test images",
}


def rows_of_a_run():
    """Rows of a run of 20,000 steps, no two of which have a bound in common."""

    def row(step, images, kl, rec):
        return Row(step, images, Bounds(kl + rec, kl, rec), step / 200)

    rows = []
    for step in range(100, 20001, 100):
        kl, rec = 19 - 800 / step, 80 + 12000 / step
        rows.append(row(step, "train", kl, rec))
        if str(step).strip("0") in ("1", "2", "5"):
            rows.append(row(step, "test", kl + 0.2, rec + 0.7))
            rows.append(row(step, "all test", kl + 0.1, rec + 0.4))
    return rows


def colours_in_the_legend(figure):
    (legend,) = figure.legends
    named = zip(legend.get_texts(), legend.legend_handles, strict=True)
    return {text.get_text(): to_hex(line.get_color()) for text, line in named}


@pytest.fixture(scope="module")
def curve():
    figure = learning_curve(rows_of_a_run())
    figure.draw_without_rendering()  # This computes the layout.
    return figure


def test_a_learning_curve_plots_the_rows(curve):
    above, below = curve.axes[:3], curve.axes[3:]
    assert [axes.get_title() for axes in above] == list(PANELS)
    for panels, begin in ((above, 0), (below, 5000)):
        for axes, bound in zip(panels, PANELS.values(), strict=True):
            lines = {line.get_label(): line for line in axes.lines}
            assert set(lines) == set(LABELS.values())
            assert axes.lines[0].get_label() == LABELS["train"]  # It is behind the others.
            for images, label in LABELS.items():
                rows = [r for r in rows_of_a_run() if r.images == images and r.step >= begin]
                points = [[row.step, getattr(row.bounds, bound)] for row in rows]
                assert lines[label].get_xydata().tolist() == points
    assert [axes.get_xscale() for axes in curve.axes] == ["log"] * 3 + ["linear"] * 3
    assert "5,000" in below[0].get_xlabel()
    assert above[0].get_ylabel() == below[0].get_ylabel() == "nats per image"


def test_half_a_nat_can_be_seen_at_the_end_of_a_learning_curve(curve):
    axes = curve.axes[3]
    low, high = axes.get_ylim()
    inches = axes.get_position().height * curve.get_figheight()
    assert 0.5 / (high - low) * inches > 0.1


def test_the_legend_of_a_learning_curve_names_its_lines(curve):
    colours = {line.get_label(): to_hex(line.get_color()) for line in curve.axes[4].lines}
    assert colours_in_the_legend(curve) == colours
    assert len(set(colours.values())) == 3


def test_a_run_without_training_rows_has_its_test_points():
    figure = learning_curve([Row(20, "test", Bounds(300.0, 1.0, 299.0), 1.0)])
    assert [len(axes.lines) for axes in figure.axes] == [1] * 6
    assert list(colours_in_the_legend(figure)) == [LABELS["test"]]


def test_the_lower_panels_of_a_short_run_hold_three_measurements_of_the_test_images():
    figure = learning_curve([row for row in rows_of_a_run() if row.step <= 1000])
    _, _, subset = figure.axes[3].lines
    assert subset.get_label() == LABELS["test"]
    assert subset.get_xdata().tolist() == [200, 500, 1000]


def test_a_run_without_rows_has_no_learning_curve():
    assert learning_curve([]) is None
