"""What asks the program to end: Ctrl-C, a terminal that is closed, and schedulers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Slurm sends SIGUSR1 or SIGUSR2 where it is asked to warn, and the system SIGXCPU before its limit.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
ENDING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # not all on Windows


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the signals that would end the program, so that it can save and end by itself.

    A program is often sent several, by the terminal, by a scheduler and by the parent process;
    collecting them all means that none interrupts the saving. What is ignored stays ignored.
    """
    received: list[int] = []
    usual = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                usual[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
