"""What a signal does to a run that trains in this process."""

import shutil
import signal
import sys
from collections import Counter
from contextlib import nullcontext
from itertools import count

import pytest
from training import (
    FOLDER,
    RUN,
    TINY,
    after_each_step,
    clock_of_steps,
    results_in,
    settle,
    state_step,
    train_small,
)

from codebase.runs import run_writer
from codebase.system.errors import Interrupted
from codebase.system.signals import ENDING
from codebase.train import train


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


def test_signals_are_collected_and_the_usual_handlers_are_restored(stray):
    usual = [signal.getsignal(number) for number in ENDING]

    def send(*_):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)

    with after_each_step(send), pytest.raises(Interrupted) as stop:
        train_small()
    assert stop.value.status == 128 + signal.SIGTERM  # the first signal
    assert state_step() == 1
    assert stray == []
    assert [signal.getsignal(number) for number in ENDING] == usual
    train_small(resume=True)
    assert [signal.getsignal(number) for number in ENDING] == usual


@pytest.mark.parametrize(("due", "reached"), [(10, 11), (30, 30)])
def test_a_signal_while_files_are_written_stops_the_run_after_the_next_step(
    monkeypatch, tmp_path, stray, due, reached
):
    """After the last step there is none, and the run is complete."""
    train_small(iter_save=due)
    whole = results_in(FOLDER.rename(tmp_path / "whole"))
    calls = count()
    stop = pytest.raises(Interrupted, match=f"interrupted at step {reached};")
    with monkeypatch.context() as patch, stop if reached < 30 else nullcontext():
        # Called before each file gets its name; for settings.json before the first step.
        patch.setattr("os.fsync", lambda _: next(calls) and signal.raise_signal(signal.SIGHUP))
        train_small(iter_save=due)
    assert RUN.saved_steps() == [due]
    assert state_step() == reached
    assert stray == []
    train_small(iter_save=due, resume=True)
    assert results_in(FOLDER) == whole


def test_a_signal_in_the_last_step_leaves_a_complete_run_with_status_0(run_vae, small):
    with after_each_step(lambda step, _: step == 30 and signal.raise_signal(signal.SIGINT)):
        finished = run_vae(*small)
    assert finished.returncode == 0
    assert "NELBO: " in finished.stdout
    assert "interrupted" not in finished.stdout + finished.stderr


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_the_shell_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # `stray` puts the usual one back
    with after_each_step(lambda *_: signal.raise_signal(number)):
        train_small(TINY._replace(iter_max=2))
    assert RUN.saved_steps() == [2]
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.slow
def test_a_signal_at_any_line_of_a_step_saves_the_run(monkeypatch):
    """Follow the lines of the loop and of RunWriter as a debugger does."""
    modules = {sys.modules[train.__module__].__file__, run_writer.__file__}
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
    with clock_of_steps(monkeypatch) as clock:
        end = clock.now + 4  # a step takes a second
        follow(4, lambda visit: visit[1] == 2 and clock.now < end and lines.add(visit[0]))
    assert {file for file, _ in lines} == modules
    assert len(lines) > 30
    for line in lines:
        shutil.rmtree(FOLDER)

        def act(visit, second=(line, 2)):
            if visit == second:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted) as stop:
            follow(10, act)
        step = state_step()
        assert f"interrupted at step {step};" in str(stop.value)
        assert RUN.saved_steps() == [*range(2, step + 1, 2)]
