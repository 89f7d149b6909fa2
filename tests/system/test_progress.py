"""The progress of a run, in a terminal, a notebook and a file."""

import io
import os
import sys

import pytest
from conftest import ROOT
from tqdm import auto

from codebase.system.streams import progress


@pytest.fixture
def error(monkeypatch):
    """Replaces standard error by a stream that is a terminal or not."""

    def error(is_terminal):
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return error


def test_a_file_gets_one_line_per_update(error):
    stream = error(False)
    with progress(3, 100, 400) as (show, seconds):
        show(200, 543.21)
        show(400, 99.0)
    assert seconds == 30
    first, second = stream.getvalue().splitlines()
    assert first.startswith("run 3:  50%|") and "| 200/400 [" in first
    assert second.startswith("run 3: 100%|") and "| 400/400 [" in second
    assert first.endswith("loss=5.43e+02]") and second.endswith("loss=9.90e+01]")
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_terminal_shows_one_bar(error):
    stream = error(True)
    with progress(0, 0, 10) as (show, seconds):
        show(5, 1.0)
    assert seconds == 0.25
    assert stream.getvalue().count("\r") > 1
    assert "5/10" in stream.getvalue()


def test_a_notebook_shows_a_bar_of_its_own(error, monkeypatch):
    class Bar(auto.tqdm):
        def display(self, *_, **__):
            shown.append(self.n)

    shown = []
    stream = error(False)
    monkeypatch.setattr(auto, "tqdm", Bar)
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
sys.stderr.isatty = lambda: {is_terminal}
from codebase.system.streams import progress
with progress(0, 0, 10) as (show, seconds):
    show(5, 1.0)
"""
    process = start("-c", program, env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"})
    assert process.communicate() == ("", "")
