"""Hand-ins that misbehave, and attempts at points that a hand-in does not earn."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import wait_for

from assignment import ROOT, TASKS, UTILS, judging, process
from assignment.judging import grade
from assignment.submission import Submission

pytestmark = pytest.mark.slow

SENT = ROOT / "tests" / "solutions" / "randn_like_v"
SAMPLE, BOUND, *_, SAMPLE_X = TASKS
LINE = "    eps = torch.randn_like(v)\n"


@pytest.fixture
def checked():
    """Check tasks of a solution with lines put into it; return the points and all sentences."""

    def checked(line="", first="", tasks=(SAMPLE,), seconds=600.0):
        text = (SENT / "utils.py").read_text()
        assert text.count(LINE) == 1
        utils = first + text.replace(LINE, f"    {line}\n{LINE}")
        files = {UTILS: utils, "codebase/models/vae.py": (SENT / "vae.py").read_text()}
        results = [*grade(Submission(files, [], {}), tasks, seconds=seconds)]
        lines = [line for result in results for line in result.lines]
        return [result.points for result in results], "; ".join(lines)

    return checked


def test_a_file_that_hangs_at_import_is_asked_once(checked, monkeypatch):
    asked = Mock(wraps=process.answer_of)
    monkeypatch.setattr(judging, "answer_of", asked)
    points, text = checked(first="while True: pass\n", tasks=(SAMPLE, BOUND), seconds=6.0)
    assert points == [0, 0] and asked.call_count == 1
    assert "line 1 of utils.py" in text and "__main__" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raise ValueError('no')", "ValueError: no (utils.py, line 10)"),
        ("exit(3)", "exit(3)"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "signal 9"),
        ("torch.empty(1_300_000_000)", "4 GB of memory"),
        ("m = m.to('cuda')", "no GPU"),
        ("import seaborn", "seaborn is not installed here and not needed"),
        ("import codebase.models.gmvae", "not a part of this hand-out"),
    ],
)
def test_what_fails_is_told_in_a_sentence(checked, line, words):
    points, text = checked(line)
    assert points == [0] and words in text


def test_an_earlier_answer_is_not_judged_again(checked):
    line = "__import__('sys').argv[0].endswith('vae.py') and __import__('os')._exit(0)"
    points, text = checked(line, tasks=(SAMPLE, BOUND))
    assert points == [3, 0] and "ended with status 0" in text


def test_the_end_of_the_server_costs_no_points(checked):
    with pytest.raises(ChildProcessError):
        checked("__import__('os')._exit(255)")


def test_a_file_that_was_not_sent_is_not_replaced_by_ours():
    files = {"codebase/models/vae.py": (SENT / "vae.py").read_text()}
    (result,) = grade(Submission(files, [], {}), [BOUND])
    assert result.points == 0 and "utils.py was not sent" in result.lines[0]


def test_the_whole_check_has_a_limit(checked):
    """The first two functions take a third of it each, so less is left than the third may take."""
    points, text = checked("while True: pass", tasks=(SAMPLE, BOUND, SAMPLE_X), seconds=3.0)
    assert points == [0, 0, 0] and "limit of 3 seconds" in text


def test_arguments_and_types_of_a_script_cost_no_points(checked):
    first = "import argparse, torch\nargparse.ArgumentParser().parse_args()\n"
    points, text = checked(first=first + "torch.set_default_dtype(torch.float64)\n")
    assert points == [3] and "torch.set_default" in text


def is_alive(pid):
    """Whether a process is there, and has not ended."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_processes_that_are_left_running_are_killed(checked):
    fork = "import os, time\npid = os.fork()\nif not pid:\n    time.sleep(10_000)\n"
    _, text = checked(first=f"{fork}raise OSError(pid)\n")
    pid = re.search(r"OSError: (\d+)", text)[1]
    wait_for(lambda: not is_alive(pid))


def children(parent):
    """The numbers of a process's children."""
    return [int(x) for x in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_students_process_too(tmp_path, number):
    shutil.copytree(SENT, tmp_path / "sent")
    results, utils = tmp_path / "results.json", tmp_path / "sent" / "utils.py"
    utils.write_text("import time\nopen('started', 'w')\ntime.sleep(10_000)\n")
    command = [sys.executable, "-m", "assignment.check", tmp_path / "sent", "--results", results]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    check = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    wait_for(lambda: [*tmp_path.rglob("started")])
    started = [pid for each in children(check.pid) for pid in [each, *children(each)]]
    check.send_signal(number)
    assert check.wait() in (128 + signal.SIGTERM, -signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, started)))
    assert [test["score"] for test in json.loads(results.read_text())["tests"]] == [0, 0, 0]


END = "__import__('os')._exit(0)"
SAVE = "__import__('numpy').savez('answer.npz', "
LINK = f"__import__('os').symlink({str(ROOT / 'LICENSE')!r}, 'answer.npz')"
ATTEMPTS = {
    "an answer of its own": f"{SAVE}z=[[[9.0]]]); {END}",
    "an answer that is a link": f"{LINK}; {END}",
    "an answer that has no form": f"open('answer.npz', 'w').write('all right'); {END}",
    "the numbers of the hand-out": f"open({str(ROOT / 'assignment' / 'numbers.json')!r}).read()",
    "our solution": f"open({str(ROOT / 'codebase' / 'utils.py')!r}).read()",
    "our environment": "import os; os.environ['PYTEST_CURRENT_TEST']",  # Pytest sets it.
    "the parent's environment": "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "a file in our folder": f"open({str(ROOT / 'codebase' / 'new.py')!r}, 'w')",
    "a large file": "open('large', 'w').truncate(100 << 20)",
    "our processes": "import os; os.kill(os.getppid(), 0)",
    "our server": "from multiprocessing import forkserver as module; "
    "assert module._forkserver._forkserver_address",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_earns_nothing(checked, attempt):
    if sys.platform != "linux":
        pytest.skip("only Linux has Landlock")
    assert checked(f"m.sum(); {ATTEMPTS[attempt]}")[0] == [0]
