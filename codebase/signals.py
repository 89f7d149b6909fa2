"""What asks the program to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

ENDING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


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


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Keep Ctrl-C for later. A process that is started meanwhile never hears of it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, which lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
