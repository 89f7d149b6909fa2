"""How far a run is, where there is a terminal and where there is none."""

import io
import os
import sys

import pytest
from conftest import ROOT
from tqdm import auto

from codebase.system.progress import progress


@pytest.fixture
def error(monkeypatch):
    """A standard error that is a terminal, or is none."""

    def error(is_terminal):
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return error


def test_in_a_file_there_is_a_line_each_time_and_nothing_else(error):
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


def test_in_a_terminal_there_is_one_bar(error):
    stream = error(True)
    with progress(0, 0, 10) as (show, seconds):
        show(5, 1.0)
    assert seconds == 0.25
    assert stream.getvalue().count("\r") > 1
    assert "5/10" in stream.getvalue()


def test_in_a_notebook_there_is_a_notebooks_bar(error, monkeypatch):
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
def test_a_user_sets_the_time_between_two_updates(error, monkeypatch, is_terminal):
    error(is_terminal)
    monkeypatch.setenv("TQDM_MININTERVAL", "7.5")
    with progress(0, 0, 10) as (_, seconds):
        assert seconds == 7.5


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_user_who_disables_tqdm_sees_nothing(start, is_terminal):
    """In a process of its own, since tqdm reads the environment when it is imported."""
    program = f"""
import sys
sys.stderr.isatty = lambda: {is_terminal}
from codebase.system.progress import progress
with progress(0, 0, 10) as (show, seconds):
    show(5, 1.0)
"""
    process = start("-c", program, env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"})
    assert process.communicate() == ("", "")
