"""The settings of a run, its name and its title."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codebase.settings import SCHEDULES, Settings

words = st.text("az_09", min_size=1)
numbers = st.integers(1, 10**9)
VALUES = {
    "nn": words,
    "z": st.integers(1, 1_000),
    "batch_size": numbers,
    "lr": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    "lr_schedule": st.sampled_from(tuple(SCHEDULES)),
    "kl_weight": st.floats(min_value=0, allow_infinity=False),
    "iter_max": numbers,
    "dataset": words,
    "valid": st.integers(0, 10**9),
    "run": st.integers(0, 10**9),
}
LINEAR = {"lr": 2e-3, "lr_schedule": "linear"}


def test_the_defaults_are_those_of_the_assignment():
    assert Settings() == ("v1", 10, 100, 1e-3, "constant", 1.0, 20000, "mnist", 0, 0)
    assert {*Settings._fields} == {*VALUES}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "model=vae_z=10_run=0000"),
        ({"z": 2, "run": 123}, "model=vae_z=02_run=0123"),
        ({"z": 1000, "run": 12345}, "model=vae_z=1000_run=12345"),
        (LINEAR, "model=vae_z=10_lr=0.002_lr_schedule=linear_run=0000"),
        (
            LINEAR | {"iter_max": 8000},
            "model=vae_z=10_lr=0.002_lr_schedule=linear_iter_max=8000_run=0000",
        ),
        ({"valid": 10_000}, "model=vae_z=10_valid=10000_run=0000"),
        ({"dataset": "synthetic"}, "model=vae_z=10_dataset=synthetic_run=0000"),
        ({"nn": "v2", "batch_size": 500}, "model=vae_nn=v2_z=10_batch_size=500_run=0000"),
        ({"kl_weight": 4, "lr": 1}, "model=vae_z=10_lr=1.0_kl_weight=4.0_run=0000"),
        ({"iter_max": 8000, "lr": float("0.001")}, "model=vae_z=10_run=0000"),
    ],
)
def test_the_name_lists_the_settings_that_differ_from_the_assignment(changed, name):
    assert Settings(**changed).name == name


@settings(deadline=None)
@given(st.builds(Settings, **VALUES), st.data())
def test_runs_share_a_name_exactly_if_they_share_their_identity(run, data):
    changed = data.draw(st.sampled_from(Settings._fields))
    other = run._replace(**{changed: data.draw(VALUES[changed])})
    matters = changed != "iter_max" or run.lr_schedule == "linear"
    alike = run == other or not matters
    assert (run.name == other.name) == alike
    assert (run.identity() == other.identity()) == alike


def test_the_title_has_the_settings_the_run_its_steps_and_its_data():
    assert Settings(run=3).title == "z = 10, run 3, 20,000 steps, MNIST"
    other = Settings(z=2, kl_weight=4, iter_max=800, dataset="synthetic")
    assert other.title == "z = 2, kl_weight = 4.0, run 0, 800 steps, synthetic digits"


@pytest.mark.parametrize(
    ("schedule", "iter_max", "factors"),
    [
        ("constant", 1000, {0: 1, 500: 1, 999: 1}),
        ("linear", 1000, {0: 0.01, 49: 0.5, 90: 0.91, 91: 0.909, 500: 0.5, 999: 0.001}),
        ("linear", 20000, {0: 0.01, 98: 0.99, 99: 0.99505, 10000: 0.5, 19999: 0.00005}),
        ("linear", 10, {0: 0.01, 4: 0.05, 9: 0.1}),
        ("linear", 1, {0: 0.01}),
    ],
)
def test_the_schedule_sets_the_factor_of_the_learning_rate(schedule, iter_max, factors):
    found = {step: SCHEDULES[schedule](step, iter_max) for step in factors}
    assert found == pytest.approx(factors)
