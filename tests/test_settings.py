"""The name of a run: everything that decides its result, as far as it is not the assignment's."""

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
    "run": st.integers(0, 10**9),
}
any_settings = st.builds(Settings, **VALUES)
LINEAR = {"lr": 2e-3, "lr_schedule": "linear"}


def test_the_defaults_are_the_assignments():
    assert Settings() == ("v1", 10, 100, 1e-3, "constant", 1.0, 20000, "mnist", 0)
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
        ({"dataset": "synthetic"}, "model=vae_z=10_dataset=synthetic_run=0000"),
        ({"nn": "v2", "batch_size": 500}, "model=vae_nn=v2_z=10_batch_size=500_run=0000"),
        ({"kl_weight": 4.0}, "model=vae_z=10_kl_weight=4.0_run=0000"),
        ({"kl_weight": 4, "lr": 1}, "model=vae_z=10_lr=1.0_kl_weight=4.0_run=0000"),
        ({"iter_max": 8000}, "model=vae_z=10_run=0000"),
        ({"lr": float("0.001")}, "model=vae_z=10_run=0000"),
    ],
)
def test_what_is_not_the_assignments_is_in_the_name(changed, name):
    assert Settings(**changed).name == name


@settings(deadline=None)
@given(any_settings)
def test_the_settings_can_be_read_from_the_name(run):
    """With a constant rate but for the steps, which decide nothing that came before them."""
    known = run if run.lr_schedule == "linear" else run._replace(iter_max=20_000)
    assert Settings.named(run.name) == known


@pytest.mark.parametrize(
    "name",
    [
        "model=vae_z=10_run=0000.1",
        "model=vae_z=10_run=0",
        "model=vae_z=10_lr=0.001_run=0000",  # which is left out of a name
        "model=vae_run=0000_z=10",
        "model=vae_z=ten_run=0000",
        "model=vae_z=10",
        "model=vae_z=10_run=0000_steps=5.csv",
        "model=gmvae_z=10_run=0000",
        "model=vae_beta=1_z=10_run=0000",
        "",
    ],
)
def test_no_other_name_is_that_of_a_run(name):
    assert Settings.named(name) is None


@settings(deadline=None)
@given(any_settings, st.data())
def test_runs_share_a_name_exactly_if_nothing_that_decides_them_differs(run, data):
    """So what is asked by the name, by resuming and by loading is the same."""
    changed = data.draw(st.sampled_from(Settings._fields))
    other = run._replace(**{changed: data.draw(VALUES[changed])})
    decides = changed != "iter_max" or run.lr_schedule == "linear"
    alike = run == other or not decides
    assert (run.name == other.name) == alike
    assert (run.deciding() == other.deciding()) == alike


def test_pictures_name_the_run_its_steps_and_its_data():
    assert Settings(run=3).title == "model=vae_z=10_run=0003, 20000 steps, mnist"


def test_the_schedules_start_and_end_where_they_say():
    linear, constant = SCHEDULES["linear"], SCHEDULES["constant"]
    factors = [linear(step, 20_000) for step in range(20_001)]
    assert factors[0] == 1 / 100
    assert max(factors) == factors[99] == pytest.approx(1, rel=0.01)
    assert factors[:100] == sorted(factors[:100])
    assert factors[99:] == sorted(factors[99:], reverse=True)
    assert factors[10_000] == 0.5
    assert factors[-1] == 0
    assert {constant(step, 20_000) for step in range(20_000)} == {1}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("iter_max", [1, 2, 99, 150, 1000])
def test_every_step_moves_and_none_by_more_than_the_rate(schedule, iter_max):
    """Even of a run that is shorter than the rise."""
    assert all(0 < SCHEDULES[schedule](step, iter_max) <= 1 for step in range(iter_max))
