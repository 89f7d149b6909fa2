"""The archive for Gradescope, unpacked and run where Gradescope unpacks and runs it."""

import json
import shlex
import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest

from assignment import ROOT, TASKS, handout

SENT = ROOT / "tests" / "solutions" / "bare"
UTILS, VAE = ((SENT / name).read_text() for name in ("utils.py", "vae.py"))


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
    shutil.copy(root / "source" / "run_autograder", root)
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for script in (python, root / "run_autograder"):
        script.chmod(0o755)
    return root


WRONG = UTILS.replace("torch.sqrt(v)", "v")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "scores"),
    [({"utils.py": WRONG, "vae.py": VAE}, [0, 6, 0, 0, 3]), ({}, [0] * 5)],
)
def test_each_task_gets_its_points(autograder, files, scores):
    for folder in ("submission", "results"):
        shutil.rmtree(autograder / folder, ignore_errors=True)
        (autograder / folder).mkdir()
    for name, text in files.items():
        (autograder / "submission" / name).write_text(text)
    subprocess.run([autograder / "run_autograder"], cwd=autograder, check=True)
    results = json.loads((autograder / "results" / "results.json").read_text())
    assert isinstance(results["output"], str)
    names = [row["name"].rpartition(" ")[2] for row in results["tests"]]
    assert names == [task.name for task in TASKS if task.number or task.name == "kl_normal"]
    assert [row["score"] for row in results["tests"]] == scores
    for row in results["tests"]:
        assert (row["status"] == "passed") == (row["score"] == row["max_score"])
