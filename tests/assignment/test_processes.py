"""Students' files that misbehave, each in a process of its own."""

import json
import os
import re
import shutil
import time

import pytest

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE, check

pytestmark = pytest.mark.slow

SENT = ROOT / "tests" / "solutions" / "rsample"
SAMPLE, _, _, PICTURE, *_ = TASKS
LINE = "    z = Normal(m, v.sqrt()).rsample()\n"


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Check one task of a solution with lines put into it, and return the verdict and the text."""
    monkeypatch.setattr(check, "SECONDS", 600)  # The machine may be busy.

    def checked(line="", first="", task=SAMPLE):
        files = {UTILS: tmp_path / "utils.py", VAE: None, VISUALIZE: ROOT / VISUALIZE}
        text = (SENT / "utils.py").read_text()
        assert text.count(LINE) == 1
        files[UTILS].write_text(first + text.replace(LINE, f"    {line}\n{LINE}"))
        solved, lines = check.check(task, files, tmp_path, set())
        return solved, "; ".join(lines)

    return checked


@pytest.mark.parametrize(("task", "seconds"), [(SAMPLE, 0.25), (PICTURE, 0.75)])
def test_a_process_that_hangs_is_killed(checked, monkeypatch, task, seconds):
    """Pictures have three times as long."""
    monkeypatch.setattr(check, "SECONDS", 0.25)
    solved, text = checked(first="import time\ntime.sleep(10_000)\n", task=task)
    assert not solved
    assert f"within {seconds} seconds" in text


def test_an_error_is_named_with_its_line(checked):
    solved, text = checked("raise ValueError('no')")
    assert not solved
    assert "ValueError: no (utils.py, line 9)" in text


def test_a_signal_is_named(checked):
    solved, text = checked("__import__('os').kill(__import__('os').getpid(), 9)")
    assert not solved
    assert "signal 9" in text


def test_memory_is_limited(checked):
    solved, text = checked("torch.empty(1_300_000_000)")  # Each has four bytes.
    assert not solved
    assert "4 GB of memory" in text


def test_printed_text_is_shortened(checked):
    solved, text = checked("print('o' * 1_000_000)")  # The function is called twice.
    assert solved
    assert "2000002 bytes" in text
    assert ": ooo" in text
    assert len(text) < 1_000


def test_processes_that_are_left_running_are_killed(checked, tmp_path):
    note = tmp_path / "pid"
    fork = "import os, time\nif not os.fork():\n"
    fork += f"    open({str(note)!r}, 'w').write(str(os.getpid()))\n    time.sleep(10_000)\n"
    fork += f"while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read(): pass\n"
    solved, text = checked(first=fork)
    assert solved
    assert "killed" in text
    process = int(note.read_text())
    while os.path.exists(f"/proc/{process}") and "Z" not in _state(process):
        time.sleep(0.1)


def _state(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")")[-1].split()[0]
    except OSError:
        return "Z"


def test_a_forked_process_cannot_answer(checked):
    line = "if child: os.waitpid(child, 0), os.kill(os.getpid(), 9)"
    solved, text = checked(line, first="import os\nchild = os.fork()\n")
    assert not solved
    assert "signal 9" in text


def test_replaced_comparisons_do_not_change_the_verdict(checked):
    replaced = "import builtins, torch\nfor name in ('allclose', 'equal', 'isclose'):\n"
    replaced += "    setattr(torch, name, lambda *_, **__: True)\nbuiltins.all = lambda _: True\n"
    solved, text = checked("return m + v * torch.randn_like(m)", first=replaced)
    assert not solved
    assert text.startswith("v is used as the deviation")


@pytest.mark.parametrize("written", ['{"z": 5}', "[]", "[1, [2", '{"z": ["a"]}'])
def test_a_forged_answer_does_not_break_the_check(checked, written):
    solved, text = checked(f"open('answer', 'w').write({written!r}); __import__('os')._exit(0)")
    assert not solved
    assert "status 0" in text


def test_a_missing_file_is_named_in_its_task_only(tmp_path, capsys):
    shutil.copy(SENT / "utils.py", tmp_path)
    assert check.main([str(tmp_path)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "sample_gaussian: 3 of 3" in text
    assert re.search(r"negative_elbo_bound: 0 of 6 points .*: vae\.py is missing", text)


def test_gradescope_gets_no_points_without_files(tmp_path):
    results = tmp_path / "results.json"
    (tmp_path / "empty").mkdir()
    assert check.main([str(tmp_path / "empty"), "--results", str(results)]) == 1
    assert {test["score"] for test in json.loads(results.read_text())["tests"]} == {0}
