"""What a signal does to a run that trains in this process."""

import shutil
import signal
import sys
from collections import Counter
from itertools import count

import pytest
from training import (
    FOLDER,
    STATE,
    TINY,
    after_each_step,
    clock_of_steps,
    interrupt,
    results_in,
    settle,
    train_small,
)

from codebase.runs import checkpoint, keeper
from codebase.runs.folder import saved_steps
from codebase.system.errors import Interrupted
from codebase.system.signals import ENDING
from codebase.train import train


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    with clock_of_steps(monkeypatch) as clock:
        yield clock


def state_step():
    return checkpoint.load(STATE)["training"]["step"]


def test_a_signal_saves_all_and_says_how_to_go_on():
    stop = interrupt(after=12, iter_save=5)
    advice = "the same command with --resume 1 goes on from there"
    assert str(stop) == f"interrupted at step 12; {advice}"
    assert stop.status == 128 + signal.SIGTERM
    assert saved_steps(FOLDER) == [5, 10]
    assert state_step() == 12


def test_signals_are_collected_and_the_usual_handlers_are_back(stray):
    usual = [signal.getsignal(number) for number in ENDING]

    def send(*_):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)

    with after_each_step(send), pytest.raises(Interrupted) as stop:
        train_small()
    assert stop.value.status == 128 + signal.SIGTERM  # the first
    assert state_step() == 1
    assert stray == []
    assert [signal.getsignal(number) for number in ENDING] == usual
    train_small(resume=True)
    assert [signal.getsignal(number) for number in ENDING] == usual


@pytest.mark.parametrize(("due", "reached"), [(10, 11), (30, 30)])
def test_a_signal_while_files_are_written_ends_the_run_once_they_are(
    monkeypatch, tmp_path, due, reached
):
    """After the next step, or after the last one; and each file is whole."""
    train_small(iter_save=due)
    whole = results_in(FOLDER.rename(tmp_path / "whole"))

    calls = count()
    with monkeypatch.context() as patch:
        # Called for each file before it gets its name; for settings.json before the first step.
        patch.setattr("os.fsync", lambda _: next(calls) and signal.raise_signal(signal.SIGHUP))
        with pytest.raises(Interrupted, match=f"interrupted at step {reached};") as stop:
            train_small(iter_save=due)
    assert stop.value.status == 128 + signal.SIGHUP
    assert saved_steps(FOLDER) == [due]
    assert state_step() == reached
    train_small(iter_save=due, resume=True)
    assert results_in(FOLDER) == whole


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_the_shell_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # `stray` puts the usual one back
    with after_each_step(lambda *_: signal.raise_signal(number)):
        train_small(TINY._replace(iter_max=2))
    assert saved_steps(FOLDER) == [2]
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.slow
def test_a_signal_at_any_line_of_a_step_is_saved(clock):
    """The lines of the loop and of what keeps the run are followed as a debugger does it."""
    modules = {sys.modules[train.__module__].__file__, keeper.__file__}
    usual = signal.getsignal(signal.SIGTERM)

    def follow(iter_max, act):
        """Train, and call `act` with each line while signals are collected, and its visits."""
        visits = Counter()

        def trace(frame, event, _):
            if frame.f_code.co_filename not in modules:
                return None
            if event == "line" and signal.getsignal(signal.SIGTERM) is not usual:
                line = frame.f_code.co_filename, frame.f_lineno
                visits[line] += 1
                act((line, visits[line]))
            return trace

        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            train_small(TINY._replace(iter_max=iter_max), iter_save=2)
        finally:
            sys.settrace(outer)

    lines = set()
    follow(4, lambda visit: visit[1] == 2 and lines.add(visit[0]))
    assert {file for file, _ in lines} == modules
    assert len(lines) > 50
    for line in lines:
        shutil.rmtree(FOLDER)

        def act(visit, second=(line, 2)):
            if visit == second:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted) as stop:
            follow(10, act)
        step = state_step()
        assert f"interrupted at step {step};" in str(stop.value)
        assert saved_steps(FOLDER) == [*range(2, step + 1, 2)]
