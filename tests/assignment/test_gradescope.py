"""The archive for Gradescope, unpacked and run where Gradescope unpacks and runs it."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from zipfile import ZipFile

import pytest
from conftest import wait_for

from assignment import ROOT, TASKS, handout

SENT = ROOT / "tests" / "solutions" / "bare"
UTILS, VAE = ((SENT / name).read_text() for name in ("utils.py", "vae.py"))
HANGING = UTILS.replace("import torch\n", "import torch\nwhile True: pass\n", 1)


@pytest.fixture(scope="module")
def autograder(tmp_path_factory):
    """The folder /autograder, as Gradescope builds it from the archive, without setup.sh."""
    root = tmp_path_factory.mktemp("autograder")
    archive = root / "archive.zip"
    arguments = [str(root / "handout"), "--tasks", "kl_normal", "--gradescope", str(archive)]
    assert handout.main(arguments) == 0
    with ZipFile(archive) as content:
        content.extractall(root / "source")
        scripts = [each for each in content.infolist() if "/" not in each.filename]
    assert {each.filename for each in scripts} == {"setup.sh", "run_autograder"}
    assert all(each.external_attr >> 16 & 0o100 for each in scripts)
    assert not [*root.glob("source/**/mistakes*"), *root.glob("source/**/grade.py")]
    shutil.copy(root / "source" / "run_autograder", root)
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for script in (python, root / "run_autograder"):
        script.chmod(0o755)
    return root


@pytest.fixture
def start(autograder):
    """Start the autograder for a submission of these texts."""
    started = []

    def start(**files):
        for folder in ("submission", "results"):
            shutil.rmtree(autograder / folder, ignore_errors=True)
            (autograder / folder).mkdir()
        for name, text in files.items():
            (autograder / "submission" / f"{name}.py").write_text(text)
        started.append(subprocess.Popen([autograder / "run_autograder"], cwd=autograder))
        return started[0]

    yield start
    started[0].kill()
    started[0].wait()


def results(autograder):
    """The rows of results.json by the names of their tasks, after a check of Gradescope's rules."""
    read = json.loads((autograder / "results" / "results.json").read_text())
    assert isinstance(read["output"], str)
    rows = {row["name"].rpartition(" ")[2]: row for row in read["tests"]}
    assert [*rows] == [t.name for t in TASKS if t.number or t.name == "kl_normal"]
    for row in rows.values():
        assert 0 <= row["score"] <= row["max_score"]
        assert row["status"] in ("passed", "failed")
    return rows


WRONG = UTILS.replace("torch.sqrt(v)", "v")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "scores"), [({"utils": WRONG, "vae": VAE}, [0, 6, 0, 0, 3]), ({}, [0] * 5)]
)
def test_each_task_gets_its_points(autograder, start, files, scores):
    assert start(**files).wait() == 0
    assert [row["score"] for row in results(autograder).values()] == scores


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_results_are_valid_when_the_platform_ends_the_check(autograder, start, number):
    process = start(utils=HANGING, vae=VAE)
    wait_for((autograder / "results" / "results.json").exists)
    process.send_signal(number)
    process.wait()
    assert all(row["score"] == 0 for row in results(autograder).values())
