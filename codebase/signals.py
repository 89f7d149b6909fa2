"""What Ctrl-C and SIGTERM do, where an exception at any moment would be wrong."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of acting on them; the second of a kind acts as usual."""
    received: list[int] = []
    usual: dict[int, Any] = {}

    def receive(number: int, _frame: Any) -> None:
        """Handle one signal."""
        received.append(number)
        signal.signal(number, usual[number])

    with _handled_by(receive, usual):
        yield received


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process silently, where nothing can be lost.

    For slow imports: C++ modules abort with pages of traceback if an exception comes meanwhile.
    """
    with _handled_by(lambda number, _frame: os._exit(128 + number), {}):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], None], usual: dict[int, Any]) -> Iterator[None]:
    """Handle the signals that are not ignored; their usual handlers are kept, and put back."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                usual[number] = signal.getsignal(number)
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)
