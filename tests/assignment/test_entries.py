"""Splitting the folder of a class into hand-ins."""

from assignment.entries import entries

METADATA = """\
---
submission_1:
  :submitters:
  - :name: Jane Doe
  :created_at: 2026-11-28 23:59:59.000000000 Z
submission_2:
  :submitters:
  - :name: "John Roe"
  - :name: Ann Poe
submission_3:
  :submitters:
  - :name: Jane Doe
"""


def split(folder, names):
    """The students of a folder with these files, the names of their parts, and who is late."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(METADATA if "metadata" in name else "")
    found, unknown = entries(folder, {(folder / "grades.csv").resolve()})
    students = {each.student: [name or path.name for name, path in each.parts] for each in found}
    return students, {each.student for each in found if each.is_late}, unknown


def test_canvas(tmp_path):
    names = ["doejane_LATE_12_34_utils-1.py", "doejane_LATE_12_35_vae.py", "roejohn_13_36_hw.zip"]
    students, late, _ = split(tmp_path, [*names, "roejohn_14_37_hw.ipynb"])
    expected = {"doejane": ["utils-1.py", "vae.py"], "roejohn 13": ["hw.zip"]}
    assert students == expected | {"roejohn 14": ["hw.ipynb"]}
    assert late == {"doejane"}


def test_moodle(tmp_path):
    folder = "Jane Doe_1234567_assignsubmission_file_"
    flat = "Jörg D'Arc-Roe_1234568_assignsubmission_file_"
    students, _, _ = split(tmp_path, [f"{folder}/hw.zip", f"{flat}utils.py", f"{flat}vae.py"])
    assert students == {"Jane Doe": [folder], "Jörg D'Arc-Roe": ["utils.py", "vae.py"]}


def test_the_export_of_gradescope(tmp_path):
    files = [*(f"submission_{x}/utils.py" for x in (1, 2, 3)), "submission_metadata.yml"]
    students, _, _ = split(tmp_path, [f"assignment_1_export/{file}" for file in files])
    assert {*students} == {"John Roe and Ann Poe", "Jane Doe submission_1", "Jane Doe submission_3"}


def test_a_shared_drive(tmp_path):
    names = ["jane/hw/utils.py", "john.tar.gz", "Ann Poe.zip", "ann_lee_utils.py", "bob.ipynb"]
    students, _, unknown = split(tmp_path, [*names, "grades.csv", ".git/x", "syllabus.pdf"])
    assert students.keys() == {"jane", "john", "Ann Poe", "ann_lee", "bob"}
    assert unknown == ["syllabus.pdf"]
