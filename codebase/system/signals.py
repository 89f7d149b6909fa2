"""Signals that ask the program to end: Ctrl-C, a closed terminal, and schedulers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Slurm can warn a job with SIGUSR1 or SIGUSR2, and the system sends SIGXCPU at a soft limit.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
ENDING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has fewer


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the signals that would end the program, so that it can save first.

    The terminal, a scheduler and a parent process may each send one; none interrupts the saving. A
    signal that is ignored stays ignored.
    """
    received: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
