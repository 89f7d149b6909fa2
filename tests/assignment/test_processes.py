"""Students' files that do something else than to answer, each in a process of its own."""

import json
import os
import shutil
import time

import pytest

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE, check

pytestmark = pytest.mark.slow

SENT = ROOT / "tests" / "solutions" / "rsample"
DRAW, _, _, PICTURE, *_ = TASKS
LINE = "    z = Normal(m, v.sqrt()).rsample()\n"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Check one task of a solution that has lines put into it; whether it is solved, and why."""
    monkeypatch.setattr(check, "SECONDS", 600)  # however busy the machine is

    def told(line="", first="", task=DRAW):
        sent = {UTILS: tmp_path / "utils.py", VAE: None, VISUALIZE: ROOT / VISUALIZE}
        text = (SENT / "utils.py").read_text()
        assert text.count(LINE) == 1
        sent[UTILS].write_text(first + text.replace(LINE, f"    {line}\n{LINE}"))
        solved, lines = check.check(task, sent, tmp_path, set())
        return solved, "; ".join(lines)

    return told


@pytest.mark.parametrize(("task", "seconds"), [(DRAW, 0.25), (PICTURE, 0.75)])
def test_hanging_is_told(told, monkeypatch, task, seconds):
    """Pictures take longer."""
    monkeypatch.setattr(check, "SECONDS", 0.25)
    sentence = f"it does not end within {seconds} seconds"
    assert told(first="import time\ntime.sleep(10_000)\n", task=task) == (False, sentence)


def test_raising_is_told_with_the_line(told):
    solved, text = told("raise ValueError('no')")
    assert not solved
    assert text.startswith("it raises ValueError: no (utils.py, line 9)")


def test_a_signal_is_told(told):
    solved, text = told("__import__('os').kill(__import__('os').getpid(), 9)")
    assert (solved, text) == (False, "it ends the process, by signal 9")


def test_asking_for_much_memory_is_told(told):
    solved, text = told("torch.empty(1_300_000_000)")  # of four bytes each
    assert (solved, text) == (False, "it asks for more than 4 GB of memory")


def test_what_is_printed_is_told_shortened(told):
    solved, text = told("print('o' * 1_000_000)")  # it is asked twice
    assert solved
    assert text.startswith("all holds; it prints 2000002 bytes, which begin: ooo")
    assert len(text) < 1_000


def test_what_is_left_behind_is_ended(told, tmp_path):
    note = tmp_path / "pid"
    fork = "import os, time\nif not os.fork():\n"
    fork += f"    open({str(note)!r}, 'w').write(str(os.getpid()))\n    time.sleep(10_000)\n"
    fork += f"while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read(): pass\n"
    assert told(first=fork) == (True, "all holds; what it had started was ended")
    process = int(note.read_text())
    while os.path.exists(f"/proc/{process}") and "Z" not in _state(process):
        time.sleep(0.1)


def _state(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")")[-1].split()[0]
    except OSError:
        return "Z"


def test_a_process_that_was_forked_does_not_answer_instead(told):
    line = "if child: os.waitpid(child, 0), os.kill(os.getpid(), 9)"
    solved, text = told(line, first="import os\nchild = os.fork()\n")
    assert (solved, text) == (False, "it ends the process, by signal 9")


def test_replacing_what_compares_changes_no_verdict(told):
    replaced = "import builtins, torch\nfor name in ('allclose', 'equal', 'isclose'):\n"
    replaced += "    setattr(torch, name, lambda *_, **__: True)\nbuiltins.all = lambda _: True\n"
    solved, text = told("return m + v * torch.randn_like(m)", first=replaced)
    assert not solved
    assert text.startswith("v is used as the deviation")


@pytest.mark.parametrize("written", ['{"z": 5}', "[1, [2", '{"z": ["a"]}'])
def test_an_answer_of_ones_own_does_not_end_the_check(told, written):
    solved, text = told(f"open('answer', 'w').write({written!r}); __import__('os')._exit(0)")
    assert (solved, text) == (False, "it ends the process, with status 0")


def test_a_file_that_is_missing_is_said_in_its_task_alone(tmp_path, capsys):
    shutil.copy(SENT / "utils.py", tmp_path)
    assert check.main([str(tmp_path)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "sample_gaussian: 3 of 3" in text
    assert "negative_elbo_bound: 0 of 6 points it raises ImportError: vae.py is not there" in text


def test_of_no_files_gradescope_gets_no_points(tmp_path):
    results = tmp_path / "results.json"
    (tmp_path / "empty").mkdir()
    assert check.main([str(tmp_path / "empty"), "--results", str(results)]) == 1
    assert {test["score"] for test in json.loads(results.read_text())["tests"]} == {0}
