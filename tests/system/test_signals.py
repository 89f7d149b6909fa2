"""Signals that ask the program to end."""

import signal
import threading

import pytest

from codebase.system.signals import caught_signals

# From people and terminals; from Slurm, if the user wants it; and from the system's soft limit.
ALL = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def test_signals_are_collected_inside_the_block_only(stray):
    with pytest.raises(ZeroDivisionError), caught_signals() as caught:
        for name in (*ALL, "SIGTERM"):
            signal.raise_signal(signal.Signals[name])
        assert stray == []
        raise ZeroDivisionError
    assert [signal.Signals(number).name for number in caught] == [*ALL, "SIGTERM"]
    for name in ALL:
        signal.raise_signal(signal.Signals[name])
    assert [signal.Signals(number).name for number in stray] == [*ALL]
    assert len(caught) == 7


def test_a_signal_that_is_ignored_stays_ignored(stray):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup does this
    with caught_signals() as caught:
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)
    assert caught == stray == []


def test_only_the_main_thread_handles_signals(stray):
    def collect():
        with caught_signals() as caught:
            signal.raise_signal(signal.SIGTERM)
        collected.append(caught)

    collected = []
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert collected == [[]]
    assert stray == [signal.SIGTERM]
