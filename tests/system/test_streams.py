"""Standard output and standard error, connected to whatever there is."""

import errno
import io
import os
import sys
from contextlib import suppress

import pytest
from conftest import SCRIPT, usual_signals

from codebase.system.streams import lenient_streams, only_errors

FAULTS = [
    "closed",
    "nobody reads",
    pytest.param("full", marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")),
]


@pytest.fixture
def start_with(start):
    """Start a Python program with a standard stream that nothing can be written to or read from."""

    def start_with(name, fault, *arguments):
        number = ("stdin", "stdout", "stderr").index(name)

        def connect():
            usual_signals()
            if fault == "closed":
                os.close(number)
            elif fault == "full":
                os.dup2(os.open("/dev/full", os.O_WRONLY), number)
            else:
                os.dup2(os.pipe()[1], number)  # its other end is closed when the program starts

        environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
        return start(*arguments, preexec_fn=connect, env=environment)

    return start_with


@pytest.mark.parametrize("fault", FAULTS)
def test_a_standard_error_that_fails_stops_nothing(start_with, fault):
    program = """
import os, sys
from codebase.system.streams import lenient_streams
with lenient_streams():
    assert sys.stderr.fileno() == 2
    for _ in range(3):
        print("more than a buffer holds" * 10_000, file=sys.stderr, flush=True)
    print(os.open(os.devnull, os.O_RDONLY) > 2)  # no file takes the place of a closed stream
"""
    process = start_with("stderr", fault, "-c", program)
    assert process.communicate() == ("True\n", "")
    assert process.returncode == 0


def test_each_line_is_handed_on_at_once(start):
    program = """
from codebase.system.streams import lenient_streams
with lenient_streams():
    print("a line")
    input()
"""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    process = start("-c", program, stdin=-1, env=environment)
    assert process.stdout.readline() == "a line\n"
    assert process.communicate("an answer\n") == ("", "")


def test_what_the_encoding_does_not_have_is_written_as_escapes(start):
    program = """
from codebase.system.streams import lenient_streams
with lenient_streams():
    print("d\\xe4t\\xe4")
"""
    environment = {"PYTHONPATH": str(SCRIPT.parent), "PYTHONIOENCODING": "ascii"}
    process = start("-c", program, env=os.environ | environment)
    assert process.communicate() == ("d\\xe4t\\xe4\n", "")


def test_a_process_that_prints_nothing_still_says_why_it_fails(capsys):
    with pytest.raises(ZeroDivisionError), only_errors():
        print("anything")
        print("anything", file=sys.stderr)
        raise ZeroDivisionError
    print("again")
    assert capsys.readouterr() == ("again\n", "")


def test_the_streams_are_put_back_whatever_happens(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), lenient_streams():
        print("out")
        print("err", file=sys.stderr)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("out\n", "err\n")


def test_a_program_without_standard_input_reads_nothing_and_keeps_no_other_file_open(start_with):
    program = """
import os, sys
from codebase.system.streams import lenient_streams
with lenient_streams():
    print([sys.stdin.read(), os.open(os.devnull, os.O_RDONLY)])
"""
    assert start_with("stdin", "closed", "-c", program).communicate() == ("['', 3]\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
@pytest.mark.parametrize("end", ["", "\n"])
def test_what_a_full_disk_has_no_room_for_is_lost_with_a_reason(monkeypatch, end):
    """A line is lost when it is written, and half a line at the end."""
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with lenient_streams() as (output, _):
            assert output.write(f"text{end}") == len(f"text{end}")
        assert output.error.errno == errno.ENOSPC
        full.flush()  # as Python does when it ends


@pytest.mark.parametrize("by_line", [True, False])
def test_standard_output_writes_afterwards_as_it_did_before(monkeypatch, by_line):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", "strict", line_buffering=by_line)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with lenient_streams():
            assert stream.line_buffering
    assert (stream.errors, stream.line_buffering) == ("strict", by_line)


@pytest.mark.slow
def test_a_standard_output_that_is_closed_is_so_on_purpose(start_with, script, small, tmp_path):
    process = start_with("stdout", "closed", script, *small, "--iter_max", 1)
    errors = process.communicate()[1]
    assert "1/1" in errors
    assert [*(tmp_path / "checkpoints").glob("*/metrics.csv")]
    assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
def test_a_standard_output_that_is_full_costs_no_bounds(run_vae, small, tmp_path, monkeypatch):
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, "stdout", full)
    finished = run_vae(*small, "--iter_max", 1)
    with suppress(OSError):
        full.close()
    assert "1/1" in finished.stderr
    assert [*(tmp_path / "checkpoints").glob("*/metrics.csv")]
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    reason = "No space left on device"
    assert last.startswith(f"run_vae.py: standard output cannot be written: {reason}; ")


@pytest.mark.slow
def test_a_reader_that_goes_away_costs_no_bounds(start, script, small, tmp_path):
    process = start(script, *small)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 1
    assert "30/30" in errors
    assert "standard output cannot be written: Broken pipe" in errors
    (metrics,) = (tmp_path / "checkpoints").glob("*/metrics.csv")
    assert "\n30,all test," in metrics.read_text()
