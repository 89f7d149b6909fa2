"""Standard output: lines at once, escapes, silence, and the progress of a run."""

import os
import re
import sys
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from types import SimpleNamespace

import pytest
import tqdm
from conftest import ROOT

from codebase.system import streams
from codebase.system.streams import configure_output, flush_output, progress, silenced

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
BEGINNING = """
import sys
from codebase.system.streams import configure_output, flush_output
configure_output()
"""


def test_each_line_is_written_at_once_with_escapes_for_what_the_encoding_lacks(start, tmp_path):
    """The program reads its own output while it runs."""
    lines = "print('d\xe4t\xe4'); print(open('output').read(), end='', file=sys.stderr)"
    with open(tmp_path / "output", "w") as output:
        environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
        process = start("-c", BEGINNING + lines, env=environment, stdout=output)
    assert process.communicate()[1] == "d\\xe4t\\xe4\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
@pytest.mark.parametrize(("path", "status"), [("/dev/full", 1), ("/dev/null", 0)])
def test_the_last_flush_reports_a_full_output(start, path, status):
    lines = "print('half a line', end=''); sys.exit(flush_output(0))"
    with open(path, "w") as output:
        process = start("-c", BEGINNING + lines, env=ENVIRONMENT, stdout=output)
    assert (process.communicate()[1], process.returncode) == ("", status)


def test_streams_that_were_closed_before_the_start_are_replaced(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    configure_output()
    for stream in (sys.stdout, sys.stderr):
        print("anything", file=stream)
    assert flush_output(0) == 0


def test_a_silenced_process_prints_nothing_but_raises_errors(capsys):
    with pytest.raises(ZeroDivisionError), silenced():
        for stream in (sys.stdout, sys.stderr):
            print("anything", file=stream)
        raise ZeroDivisionError
    print("again")
    assert capsys.readouterr() == ("again\n", "")


@pytest.mark.parametrize("place", ["file", "terminal", "notebook"])
def test_a_file_gets_one_line_per_update_and_a_terminal_or_notebook_one_bar(monkeypatch, place):
    stream, imported = StringIO(), []
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
    assert seconds == (30 if place == "file" else 0.25)
    assert imported == ["tqdm.auto" if place == "notebook" else "tqdm"]
    shown = stream.getvalue()
    first, *_, last = (line.rstrip() for line in shown.splitlines() if "loss=" in line)
    assert re.fullmatch(r"run 3:  50%\|.*\| 200/400 \[.*loss=543\.2\]", first)
    assert re.fullmatch(r"run 3: 100%\|.*\| 400/400 \[.*loss=99\.0\]", last)
    # A bar is redrawn in place.
    assert ("\r" in shown) == (place != "file") and (shown.count("\n") == 2) == (place == "file")
    monkeypatch.setenv("TQDM_MININTERVAL", "7.5")
    with progress(0, 0, 10) as (_, seconds):
        assert seconds == 7.5  # the user's


def test_a_terminal_without_rows_gets_lines():
    """A new pseudo-terminal reports 0 rows, and tqdm shows no bar there."""
    reader, writer = os.openpty()
    with os.fdopen(reader), os.fdopen(writer, "w") as terminal, redirect_stderr(terminal):
        assert not streams.is_interactive()


def test_a_disabled_tqdm_shows_nothing(monkeypatch, capsys):
    """Its environment variable TQDM_DISABLE changes this default when it is imported."""
    tqdm_disabled = SimpleNamespace(tqdm=partial(tqdm.tqdm, disable=True))
    monkeypatch.setattr(streams, "import_module", lambda _: tqdm_disabled)
    with progress(0, 0, 10) as (show, _):
        show(5, 1.0)
    assert capsys.readouterr().err == ""
