"""The settings of a run, its name and its title."""

import math
from itertools import product

import pytest

from codebase.settings import SCHEDULES, Settings

VALUES = {
    **dict.fromkeys(("nn", "dataset"), ("v1", "v2", "v", "v_1")),
    **dict.fromkeys(("z", "batch_size", "iter_max", "valid", "run"), (0, 1, 10, 100, 20_000)),
    **dict.fromkeys(
        ("lr", "kl_weight"), (0.0, 1.0, 1e-3, 0.1, math.nextafter(0.1, 1), 1e-20, 1e20)
    ),
    "lr_schedule": tuple(SCHEDULES),
}
LINEAR = Settings(lr=2e-3, lr_schedule="linear")
NAMES = {
    "z=10_run=0000": Settings(),
    "z=02_valid=10000_run=0123": Settings(z=2, run=123, valid=10_000),
    "z=1000_run=12345": Settings(z=1000, run=12345, iter_max=8000),
    "z=10_lr=0.002_lr_schedule=linear_run=0000": LINEAR,
    "z=10_lr=0.002_lr_schedule=linear_iter_max=800_run=0000": LINEAR._replace(iter_max=800),
    "nn=v2_z=10_lr=1.0_kl_weight=4.0_run=0000": Settings(nn="v2", kl_weight=4, lr=1),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_lists_the_settings_that_differ_from_the_assignment(name):
    assert NAMES[name].name == f"model=vae_{name}"


@pytest.mark.parametrize("name", VALUES)
def test_runs_share_a_name_exactly_if_they_share_their_identity(name):
    for base, *values in product((Settings(), LINEAR), VALUES[name], VALUES[name]):
        run, other = (base._replace(**{name: value}) for value in values)
        matters = name != "iter_max" or run.lr_schedule == "linear"
        alike = run == other or not matters
        assert (run.name == other.name) == alike, values
        assert (run.identity() == other.identity()) == alike, values


def test_the_title_has_the_settings_the_run_its_steps_and_its_data():
    assert Settings(run=3).title == "z = 10, run 3, 20,000 steps, MNIST"
    other = Settings(z=2, kl_weight=4, iter_max=800, dataset="synthetic")
    assert other.title == "z = 2, kl_weight = 4.0, run 0, 800 steps, synthetic digits"


def test_the_linear_schedule_rises_for_100_steps_and_falls_to_0_at_the_end():
    factors = [SCHEDULES["linear"](step, 1000) for step in (0, 49, 90, 91, 500, 999)]
    assert factors == pytest.approx([0.01, 0.5, 0.91, 0.909, 0.5, 0.001])
