#!/usr/bin/env bash
# nbgrader 0.9.6: only notebooks are prepared and graded. A .py file beside them is released with
# its solution, and the teacher's .py file is graded in the place of the student's.
#
# Expected: "### BEGIN SOLUTION" is removed from every file of the assignment, and the tests of the
# notebook import the student's utils.py.
# Observed: a student whose answer() returns 0 where 42 is asked for gets 1.0 of 1.0 points.
# c.Autograde.exclude_overwriting = {"ps1": ["utils.py"]} lets the student's file be graded. No
# option removes the solution from it.
# Output: released with the solution: True; points 1.0 of 1.0; graded file is the teacher's: True
# Source: nbgrader/converters/autograde.py, exclude_overwriting, and base.py, init_assignment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile nbgrader==0.9.6
export PATH="$folder/venv/bin:$PATH"
mkdir -p "$folder/course/source/ps1"
cd "$folder/course"
cat > source/ps1/utils.py <<'END'
def answer():
    ### BEGIN SOLUTION
    return 42
    ### END SOLUTION
END
cat > nbgrader_config.py <<'END'
c = get_config()
c.CourseDirectory.course_id = "course"
END
python - <<'END'
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

graded = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "task": False}
graded |= {"grade_id": "test", "points": 1}
cell = new_code_cell(
    "from utils import answer\nassert answer() == 42", metadata={"nbgrader": graded}
)
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), "source/ps1/ps1.ipynb")
END
nbgrader generate_assignment ps1 > log 2>&1
released=$(grep -c "return 42" release/ps1/utils.py)
mkdir -p submitted/student/ps1
cp release/ps1/ps1.ipynb submitted/student/ps1
printf 'def answer():\n    return 0\n' > submitted/student/ps1/utils.py
nbgrader autograde ps1 >> log 2>&1
python - "$released" <<'END'
import sys
from pathlib import Path

from nbgrader.api import Gradebook

with Gradebook("sqlite:///gradebook.db") as book:
    submission = book.find_submission("ps1", "student")
    points = (submission.score, submission.max_score)
graded = Path("autograded/student/ps1/utils.py").read_bytes()
teachers = graded == Path("source/ps1/utils.py").read_bytes()
released = sys.argv[1] == "1"
print(f"released with the solution: {released}; points {points[0]} of {points[1]};", end=" ")
print(f"graded file is the teacher's: {teachers}")
assert released and points == (1, 1) and teachers
END
