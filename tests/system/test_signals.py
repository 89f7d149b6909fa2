"""Signals that ask the program to end."""

import signal
import threading

import pytest
from conftest import SCRIPT

from codebase.system.signals import caught_signals

# From people and terminals; from Slurm, if the user wants it; and from the system's soft limit.
ALL = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# Runs the script, and sends SIGINT when it imports a certain module.
PROGRAM = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == module:
            print("sent", flush=True)
            os.kill(os.getpid(), signal.SIGINT)

module, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_signals_are_collected_inside_the_block_only(stray):
    with caught_signals() as caught:
        for name in (*ALL, "SIGTERM"):
            signal.raise_signal(signal.Signals[name])
    assert [signal.Signals(number).name for number in caught] == [*ALL, "SIGTERM"]
    assert stray == []
    with pytest.raises(ZeroDivisionError), caught_signals():
        raise ZeroDivisionError
    signal.raise_signal(signal.SIGHUP)
    assert stray == [signal.SIGHUP]
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


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch.nn", "torchvision.models"])
def test_an_interrupted_import_ends_without_a_traceback(start, tmp_path, module):
    process = start("-c", PROGRAM, module, SCRIPT, "--dataset", "mnist")
    output, errors = process.communicate()
    assert output.endswith("sent\n")
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert [*tmp_path.glob("data/*")] == []
