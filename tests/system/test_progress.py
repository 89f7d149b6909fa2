"""The clock and the bar of a run."""

import time
from itertools import count
from types import SimpleNamespace

import pytest
from codebase.progress import Bar, every


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves on, beside a wall clock that is set back all the time."""
    clock, wall = SimpleNamespace(now=1000.0), count(2e9, -3600)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "time", lambda: next(wall))
    return clock


def test_a_time_is_due_once_it_has_passed_since_it_was_last_due(clock):
    due, answers = every(10), []
    for clock.now in (1000, 1009.5, 1010, 1010, 1019.5, 1025, 1034.5, 1035):
        answers.append(due())
    assert answers == [False, False, True, False, False, True, False, True]


def test_no_time_is_always_due(clock):
    due = every(0)
    assert due()
    assert due()


def test_two_times_are_due_by_themselves(clock):
    often, seldom = every(2), every(3)
    clock.now += 2
    assert often()
    assert not seldom()
    clock.now += 1
    assert not often()
    assert seldom()


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """There is none that would be too narrow for the whole bar."""
    monkeypatch.delenv("COLUMNS", raising=False)


def last_drawn(capsys):
    return capsys.readouterr().err.split("\r")[-1].strip()


def test_the_bar_shows_steps_loss_speed_and_time_by_a_clock_that_is_never_set_back(clock, capsys):
    with Bar(3, 2000) as bar:
        assert last_drawn(capsys).startswith("run 3:   0%|")
        bar.show(1, 612.5)
        clock.now += 10
        bar.show(501, 137.25)
        drawn = last_drawn(capsys)
        assert drawn.startswith("run 3:  25%|")
        assert "| 501/2000 [00:10<00:29, 50.00it/s, loss=1.37e+02]" in drawn
        clock.now += 30
        bar.show(2000, 99.0)
    drawn = capsys.readouterr().err
    assert "| 2000/2000 [00:40<00:00, 49.98it/s, loss=9.90e+01]" in drawn
    assert drawn.endswith("\n")


def test_the_steps_of_before_count_for_no_speed(clock, capsys):
    with Bar(0, 2000) as bar:
        bar.show(1000, 100.0)
        clock.now += 10
        bar.show(1200, 100.0)
        assert "| 1200/2000 [00:10<00:40, 20.00it/s, loss=1.00e+02]" in last_drawn(capsys)


def test_a_bar_that_does_not_stay_is_cleared(clock, capsys):
    with Bar(0, 10, leave=False) as bar:
        bar.show(5, 100.0)
    drawn = capsys.readouterr().err
    bar.close()  # as tqdm does when it forgets the bar
    assert capsys.readouterr().err == ""
    assert "5/10" in drawn
    assert drawn.split("\r")[-1].strip() == ""
    assert "\n" not in drawn


def test_every_show_is_drawn(capsys):
    """However fast they follow each other: who calls decides how often that is."""
    with Bar(0, 100) as bar:
        for step in range(1, 6):
            bar.show(step, 100.0)
            assert f"| {step}/100 [" in last_drawn(capsys)
