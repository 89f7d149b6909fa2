"""Grading a class: the table, the students' texts, and what a second call does."""

import csv
import json
import shutil
from zipfile import ZipFile

import pytest

from assignment import ROOT, grade
from assignment.entries import Entry

SENT = ROOT / "tests" / "solutions" / "bare"
UTILS, VAE = ((SENT / name).read_text() for name in ("utils.py", "vae.py"))
TASKS = ["sample_gaussian", "negative_elbo_bound", "visualize_samples"]
CLASS = {
    "doejane_LATE_12_34_utils-1.py": UTILS,
    "doejane_LATE_12_35_vae.py": VAE,
    "roejohn_13_36_utils.py": UTILS.replace("torch.sqrt(v)", "v"),
    "copycat/utils.py": "# My own work\n" + UTILS.replace("(m, v)", "( m, v )", 1),
    "copycat/codebase/models/vae.py": VAE,
    "=cmd/report.pdf": "",
    "broken.zip": "PK",
    "syllabus.pdf": "",
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def table(folder):
    """The rows of a class by student."""
    with open(folder / "grades.csv", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A class that was graded in one call."""
    folder = tmp_path_factory.mktemp("class")
    write(folder, CLASS)
    grade.main([str(folder), "--jobs", "2"])
    return folder


@pytest.mark.slow
def test_each_student_has_a_row_and_a_text(graded):
    rows = table(graded)
    assert [*rows] == ["'=cmd", "broken", "copycat", "doejane", "roejohn"]
    texts = {path.stem for path in (graded / "feedback").iterdir()}
    assert texts == {*rows} - {"'=cmd"} | {"_cmd"}
    points = {name: [rows[name][task] for task in [*TASKS, "sum"]] for name in rows}
    assert points["doejane"] == ["3", "6", "0", "9"]
    assert points["roejohn"] == ["0", "0", "0", "0"]
    assert points["broken"] == ["0", "0", "0", "0"]
    assert rows["doejane"]["late"] and not rows["copycat"]["late"]
    assert "utils-1.py" in rows["doejane"]["files read"]
    assert "variance" in (graded / "feedback" / "roejohn.txt").read_text()
    assert "broken.zip" in (graded / "feedback" / "broken.txt").read_text()


@pytest.mark.slow
def test_equal_functions_are_noted_for_the_teacher_alone(graded):
    rows = table(graded)
    assert "copycat" in rows["doejane"]["notes"] and "doejane" in rows["copycat"]["notes"]
    assert "copycat" not in rows["roejohn"]["notes"]
    assert "=cmd" not in rows["broken"]["notes"]  # Neither has any.
    assert "copycat" not in (graded / "feedback" / "doejane.txt").read_text()


@pytest.mark.slow
def test_a_second_call_grades_only_what_is_new_or_changed(graded, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(graded, folder)
    records = json.loads((folder / "grades.json").read_text())
    for record in records.values():
        record["text"] = "as before"
    (folder / "grades.json").write_text(json.dumps(records))
    write(folder, {"doejane_LATE_12_35_vae.py": VAE.replace("kl + rec", "kl - rec")})
    write(folder, {"new/utils.py": UTILS})
    grade.main([str(folder)])
    texts = {path.stem: path.read_text() for path in (folder / "feedback").iterdir()}
    assert texts["roejohn"] == texts["copycat"] == "as before"
    assert "as before" not in (texts["doejane"], texts["new"])
    assert table(folder)["new"]["sum"] == "3"


@pytest.mark.slow
def test_a_check_that_fails_costs_no_other_hand_in(tmp_path, monkeypatch):
    def failing(files):
        assert "# My own work" not in "".join(files.values())
        return []

    monkeypatch.setattr(grade, "suspicious", failing)
    write(tmp_path, {"jane/utils.py": UTILS, "john/utils.py": "# My own work\n" + UTILS})
    assert grade.main([str(tmp_path)]) == 1
    rows = table(tmp_path)
    assert [rows[name]["sum"] for name in ("jane", "john")] == ["3", ""]
    assert "AssertionError" in rows["john"]["notes"]


def test_an_interrupted_table_says_who_is_not_graded_yet(tmp_path):
    found = [Entry(name, False, []) for name in ("jane", "john")]
    records = {"john": grade.Record({"kl_normal": 3}, "", "Read: utils.py.", [])}
    grade.write_table(tmp_path / "grades.csv", found, records)
    rows = table(tmp_path)
    assert [rows[name]["sum"] for name in ("jane", "john")] == ["", "3"]
    assert "not graded yet" in rows["jane"]["notes"].lower() and not rows["john"]["notes"]


@pytest.mark.slow
def test_a_zip_is_graded_beside_it_and_again_for_further_tasks(tmp_path):
    with ZipFile(tmp_path / "class.zip", "w") as archive:
        archive.writestr("jane/utils.py", UTILS)
        archive.writestr("john/report.pdf", "")
    assert grade.main([str(tmp_path / "class.zip")]) == 0
    assert [row["sum"] for row in table(tmp_path / "class").values()] == ["3", "0"]
    grade.main([str(tmp_path / "class.zip"), "--tasks", "kl_normal"])
    assert [row["kl_normal"] for row in table(tmp_path / "class").values()] == ["3", "0"]


@pytest.mark.parametrize("name", ["missing", "hand-in", "broken.zip"])
def test_what_is_no_class_is_refused_in_a_sentence(tmp_path, name, capsys):
    write(tmp_path, {"hand-in/codebase/utils.py": UTILS, "broken.zip": "PK"})
    with pytest.raises(SystemExit) as stop:
        grade.main([str(tmp_path / name)])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_code_that_a_teacher_should_read_is_noted():
    for line in ("import os.path as p", "from socket import *", "x = eval('1')", "open('x')"):
        assert len(grade.suspicious({"codebase/utils.py": line})) == 1, line
    assert not grade.suspicious({"codebase/utils.py": "import math\nmodel.eval()\n"})
