"""Students' files that do something else than to answer, each in its own process."""

import os
import re
import shutil
import time

import pytest

from assignment import ROOT, VISUALIZE, check

pytestmark = pytest.mark.slow

SENT = ROOT / "tests" / "solutions" / "rsample"
# Where task 1, task 2 and task 4 come by: each asks sample_gaussian for another number of rows.
PLACES = {
    "1": ("utils.py", "    z = Normal(m, v.sqrt()).rsample()\n", "    if len(m) == 16_000:\n    "),
    "2": ("vae.py", "        kl, rec = torch.mean(kl), torch.mean(rec)\n", ""),
    "4": ("visualize.py", "    x = model.sample_x(num_samples)\n", ""),
}


@pytest.fixture
def told(tmp_path, capsys, monkeypatch):
    """Check a solution that has lines put into it; give what is said of each task."""
    monkeypatch.setattr(check, "SECONDS", 600)  # however busy the machine is

    def told(first="", **lines):
        shutil.copytree(SENT, tmp_path / "sent")
        shutil.copy(ROOT / VISUALIZE, tmp_path / "sent")
        for task, line in lines.items():
            name, before, prefix = PLACES[task.strip("_")]
            text = (tmp_path / "sent" / name).read_text()
            indent = re.match(" *", before)[0]
            assert text.count(before) == 1
            put = f"{prefix}{indent}{line}\n{before}"
            (tmp_path / "sent" / name).write_text(text.replace(before, put))
        utils = tmp_path / "sent" / "utils.py"
        utils.write_text(first + utils.read_text())
        check.main([str(tmp_path / "sent")])
        text = capsys.readouterr().out
        return [" ".join(each.split()) for each in text.strip().split("\n\n")]

    return told


def test_hanging_is_told(told, monkeypatch):
    monkeypatch.setattr(check, "SECONDS", 1)
    texts = told("import time\ntime.sleep(10_000)\n")
    for text, seconds in zip(texts, (1, 1, 3), strict=True):  # pictures take longer
        assert "0 of " in text and f"does not end within {seconds} seconds" in text


def test_exiting_and_printing_is_told(told):
    first, second, fourth = told(
        _1="exit()",
        _2="import os; os._exit(0)",
        _4="print('o' * 1_000_000)",  # for each of two pictures
    )
    assert "it calls exit()" in first
    assert "it ends the process, with status 0" in second
    assert "visualize_samples: 3 of 3 points" in fourth
    assert "it prints 2000002 bytes, which begin: ooo" in fourth
    assert len(fourth) < 1_000


def test_raising_exiting_and_writing_nothing_is_told(told):
    first, second, fourth = told(_1="raise ValueError('no')", _2="exit(3)", _4="return")
    assert re.search(r"it raises ValueError: no \(utils.py, line \d+\)", first)
    assert "it calls exit(3)" in second
    assert "no file is written to save_path" in fourth


def test_what_is_left_behind_is_ended(told, tmp_path):
    note = tmp_path / "pid"
    fork = "import os, time\nif not os.fork():\n"
    fork += f"    open({str(note)!r}, 'w').write(str(os.getpid()))\n    time.sleep(10_000)\n"
    first, second, fourth = told(
        fork,
        _2="x = torch.ones(10**10)",
        _4="os = __import__('os'); os.kill(os.getpid(), 9)",
    )
    assert "3 of 3 points" in first
    assert "what it had started was ended" in first
    assert "it asks for more than 4 GB of memory" in second
    assert "it ends the process, by signal 9" in fourth
    process = int(note.read_text())
    while os.path.exists(f"/proc/{process}") and "Z" not in _state(process):
        time.sleep(0.1)


def _state(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")")[-1].split()[0]
    except OSError:
        return "Z"


def test_a_process_that_is_forked_does_not_answer_too(told):
    first, *_ = told("import os\nos.fork()\n")
    assert "3 of 3 points" in first


def test_replacing_what_compares_changes_no_verdict(told):
    replaced = "import builtins, torch\nfor name in ('allclose', 'equal', 'isclose'):\n"
    replaced += "    setattr(torch, name, lambda *_, **__: True)\nbuiltins.all = lambda _: True\n"
    first, *_ = told(replaced, _1="return m + v * torch.randn_like(m)")
    assert "0 of 3 points v is used as the deviation" in first


def test_an_answer_of_ones_own_does_not_end_the_check(told):
    forged = "open('answer', 'w').write({!r}); __import__('os')._exit(0)"
    written = ('{"z": 5}', "[1, [2", '{"z": ["a"]}')
    texts = told(**dict(zip(("_1", "_2", "_4"), map(forged.format, written), strict=True)))
    assert all(": 0 of " in text and "status 0" in text for text in texts)


def test_a_file_that_is_missing_is_said(tmp_path, capsys):
    shutil.copy(SENT / "utils.py", tmp_path)
    assert check.main([str(tmp_path)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "sample_gaussian: 3 of 3" in text
    assert "negative_elbo_bound: 0 of 6 points it raises ImportError: vae.py is not there" in text
