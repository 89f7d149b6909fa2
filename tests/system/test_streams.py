"""Standard output: lines at once, escapes, silence, and outputs that end or are full."""

import os
import sys
from subprocess import PIPE, Popen

import pytest
from conftest import ROOT

from codebase.system.streams import configure_output, flush_output, silenced

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
# Configures standard output, and then runs the lines in the argument.
PROGRAM = """
import sys
from codebase.system.streams import configure_output, flush_output
configure_output()
exec(sys.argv[1])
"""


@pytest.fixture
def start_program(start):
    """Starts PROGRAM with these lines."""

    def start_program(lines, environment=None, **options):
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
        return start("-c", PROGRAM, lines, env=environment, **options)

    return start_program


def test_each_line_is_written_at_once(start_program):
    process = start_program("print('a line'); input()", stdin=PIPE)
    assert process.stdout.readline() == "a line\n"
    assert process.communicate("an answer\n") == ("", "")


def test_characters_that_the_encoding_lacks_are_escaped(start_program):
    process = start_program("print('d\xe4t\xe4')", {"PYTHONIOENCODING": "ascii"})
    assert process.communicate() == ("d\\xe4t\\xe4\n", "")


@FULL
@pytest.mark.parametrize(("path", "status"), [("/dev/full", 1), ("/dev/null", 0)])
def test_the_last_flush_reports_a_full_output(start_program, path, status):
    lines = "print('half a line', end=''); sys.exit(flush_output(0))"
    with open(path, "w") as output:
        process = start_program(lines, {"PYTHONUNBUFFERED": ""}, stdout=output)
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


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 4])
def test_a_closed_reader_of_the_output_is_one_sentence(start, script, small, tmp_path, lines):
    """Four lines are printed before the training, and the next one after a model is saved."""
    process = start(script, *small)
    with Popen(["head", f"-{lines}"], stdin=process.stdout, stdout=PIPE, text=True) as head:
        process.stdout.close()
        assert head.communicate()[0].startswith("Arguments: ")
    errors = process.stderr.read()
    assert process.wait() == 1
    assert "Traceback" not in errors
    sentence = errors.splitlines()[-1]
    assert sentence.startswith("run_vae.py: ") and "Broken pipe" in sentence
    if lines == 4:
        assert [*tmp_path.glob("checkpoints/*/model-00030.pt")]


@FULL
@pytest.mark.slow
def test_a_full_output_is_one_sentence(start, script, small):
    with open("/dev/full", "w") as full:
        process = start(script, *small, stdout=full)
    errors = process.communicate()[1]
    assert process.returncode == 1
    assert errors.startswith("run_vae.py: ") and errors.count("\n") == 1
    assert "No space left on device" in errors
