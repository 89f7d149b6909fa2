"""The progress of a run, in a terminal, a notebook and a file."""

import io
import os
import sys
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest
import tqdm
from conftest import ROOT

from codebase.system.streams import is_interactive, progress


@pytest.fixture
def error(monkeypatch):
    """Replaces standard error by a stream that is a terminal or not."""

    def error(is_terminal):
        stream = io.StringIO()
        if is_terminal:
            stream.fileno = lambda: 99
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return error


def test_a_stream_without_a_descriptor_is_no_terminal(error):
    """IDLE's stream says that it is one, but prints every bar in a line of its own."""
    stream = error(False)
    stream.isatty = lambda: True
    assert not is_interactive()
    error(True)
    assert is_interactive()


def test_a_terminal_without_rows_gets_lines():
    """A new pseudo-terminal reports 0 rows, and tqdm shows no bar there."""
    reader, writer = os.openpty()
    with os.fdopen(reader), os.fdopen(writer, "w") as terminal, redirect_stderr(terminal):
        assert not is_interactive()


def test_a_file_gets_one_line_per_update(error):
    stream = error(False)
    with progress(3, 100, 400) as (show, seconds):
        show(200, 543.21)
        show(400, 99.0)
    assert seconds == 30
    first, second = stream.getvalue().splitlines()
    assert first.startswith("run 3:  50%|") and "| 200/400 [" in first
    assert second.startswith("run 3: 100%|") and "| 400/400 [" in second
    assert first.endswith("loss=543.2]") and second.endswith("loss=99.0]")
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_terminal_shows_one_bar(error):
    stream = error(True)
    with progress(0, 0, 10) as (show, seconds):
        show(5, 1.0)
    assert seconds == 0.25
    assert stream.getvalue().count("\r") > 1
    assert "5/10" in stream.getvalue()


def test_a_notebook_shows_a_bar_of_its_own(error, monkeypatch):
    class Bar(tqdm.tqdm):
        def display(self, *_, **__):
            shown.append(self.n)

    shown = []
    stream = error(False)
    monkeypatch.setattr(
        "codebase.system.streams.import_module", lambda _: SimpleNamespace(tqdm=Bar)
    )
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress(0, 0, 10) as (show, seconds):
        show(5, 1.0)
    assert seconds == 0.25
    assert 5 in shown
    assert stream.getvalue().strip() == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_user_sets_the_time_between_two_updates(error, monkeypatch, is_terminal):
    error(is_terminal)
    monkeypatch.setenv("TQDM_MININTERVAL", "7.5")
    with progress(0, 0, 10) as (_, seconds):
        assert seconds == 7.5


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_disabled_tqdm_shows_nothing(start, is_terminal):
    """A new process is needed, because tqdm reads the environment when it is imported."""
    program = f"""
import sys
from codebase.system import streams
streams.is_interactive = lambda: {is_terminal}
from codebase.system.streams import progress
with progress(0, 0, 10) as (show, seconds):
    show(5, 1.0)
"""
    process = start("-c", program, env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"})
    assert process.communicate() == ("", "")
