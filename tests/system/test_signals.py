"""Signals that ask the program to end."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from codebase.system.signals import caught_signals

# From people and terminals; from Slurm, if the user wants it; and from the system's soft limit.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
ALL = [getattr(signal, name) for name in (*NAMES, "SIGTERM")]


def raise_all():
    for number in ALL:
        signal.raise_signal(number)


def test_signals_are_collected_inside_the_block_only(stray):
    with pytest.raises(ZeroDivisionError), caught_signals() as caught:
        raise_all()
        assert (caught, stray) == (ALL, [])
        raise ZeroDivisionError
    raise_all()
    assert (caught, stray) == (ALL, ALL)


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
        return caught

    with ThreadPoolExecutor() as pool:
        assert pool.submit(collect).result() == []
    assert stray == [signal.SIGTERM]
