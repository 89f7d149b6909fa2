"""The settings of a run, its name and its title."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codebase.settings import SCHEDULES, Settings

WORDS = st.text("az_09", min_size=1)
NUMBERS = st.floats(min_value=0, allow_infinity=False)
VALUES = {
    **dict.fromkeys(("nn", "dataset"), WORDS),
    **dict.fromkeys(("z", "batch_size", "iter_max", "valid", "run"), st.integers(0, 10**9)),
    **dict.fromkeys(("lr", "kl_weight"), NUMBERS),
    "lr_schedule": st.sampled_from(tuple(SCHEDULES)),
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


def test_the_linear_schedule_rises_for_100_steps_and_falls_to_0_at_the_end():
    factors = [SCHEDULES["linear"](step, 1000) for step in (0, 49, 90, 91, 500, 999)]
    assert factors == pytest.approx([0.01, 0.5, 0.91, 0.909, 0.5, 0.001])
