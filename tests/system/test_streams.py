"""Standard output: lines at once, escapes, silence, and the progress of a run."""

import io
import os
import sys
from contextlib import redirect_stderr

import pytest
import tqdm
from conftest import ROOT

from codebase.system import streams
from codebase.system.streams import configure_output, flush_output, progress, silenced

USUAL = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "ascii"}
BEGINNING = """
import sys
from codebase.system import streams
from codebase.system.streams import configure_output, flush_output, progress
configure_output()
"""


def test_each_line_is_written_at_once_with_escapes_for_what_the_encoding_lacks(start, tmp_path):
    """The program reads its own output while it runs."""
    lines = "print('d\xe4t\xe4'); print(open('output').read(), end='', file=sys.stderr)"
    with open(tmp_path / "output", "w") as output:
        process = start("-c", BEGINNING + lines, env=os.environ | USUAL, stdout=output)
    assert process.communicate()[1] == "d\\xe4t\\xe4\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
@pytest.mark.parametrize(("path", "status"), [("/dev/full", 1), ("/dev/null", 0)])
def test_the_last_flush_reports_a_full_output(start, path, status):
    lines = "print('half a line', end=''); sys.exit(flush_output(0))"
    with open(path, "w") as output:
        process = start("-c", BEGINNING + lines, env=os.environ | USUAL, stdout=output)
    assert process.communicate()[1] == ""
    assert process.returncode == status


def test_streams_that_were_closed_before_the_start_are_replaced(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    configure_output()
    print("anything")
    print("anything", file=sys.stderr)
    assert flush_output(0) == 0


def test_a_silenced_process_prints_nothing_but_raises_errors(capsys):
    with pytest.raises(ZeroDivisionError), silenced():
        print("anything")
        print("anything", file=sys.stderr)
        raise ZeroDivisionError
    print("again")
    assert capsys.readouterr() == ("again\n", "")


@pytest.mark.parametrize(
    ("place", "interval"), [("file", 30), ("terminal", 0.25), ("notebook", 0.25)]
)
def test_a_file_gets_one_line_per_update_and_a_terminal_or_notebook_one_bar(
    monkeypatch, place, interval
):
    stream, imported = io.StringIO(), []
    stream.isatty = lambda: True  # as IDLE's, which has no descriptor
    if place == "terminal":
        stream.fileno = lambda: 99
    elif place == "notebook":
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(streams, "find_spec", lambda _: place == "notebook")
    monkeypatch.setattr(streams, "import_module", lambda name: imported.append(name) or tqdm)
    with progress(3, 100, 400) as (show, seconds):
        show(200, 543.21)
        show(400, 99.0)
    assert seconds == interval
    assert imported == ["tqdm.auto" if place == "notebook" else "tqdm"]
    first, *_, last = [line.rstrip() for line in stream.getvalue().splitlines() if "loss=" in line]
    assert first.startswith("run 3:  50%|") and "| 200/400 [" in first
    assert first.endswith("loss=543.2]") and last.endswith("loss=99.0]") and "| 400/400 [" in last
    # A bar is redrawn in place.
    assert ("\r" in stream.getvalue()) == (place != "file")
    assert place != "file" or stream.getvalue().count("\n") == 2
    monkeypatch.setenv("TQDM_MININTERVAL", "7.5")
    with progress(0, 0, 10) as (_, seconds):
        assert seconds == 7.5  # the user's


def test_a_terminal_without_rows_gets_lines():
    """A new pseudo-terminal reports 0 rows, and tqdm shows no bar there."""
    reader, writer = os.openpty()
    with os.fdopen(reader), os.fdopen(writer, "w") as terminal, redirect_stderr(terminal):
        assert not streams.is_interactive()


def test_a_disabled_tqdm_shows_nothing(start):
    """A new process is needed, because tqdm reads the environment when it is imported."""
    lines = """
for interactive in (True, False):
    streams.is_interactive = lambda: interactive
    with progress(0, 0, 10) as (show, seconds):
        show(5, 1.0)
"""
    environment = os.environ | USUAL | {"TQDM_DISABLE": "1"}
    process = start("-c", BEGINNING + lines, env=environment)
    assert process.communicate() == ("", "")
