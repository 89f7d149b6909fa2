#!/usr/bin/env bash
# gradescope-utils 0.5.0: a test with subTest in which one subtest fails is missing in Gradescope's
# results.json: it is neither failed nor passed, and its points are not counted.
#
# Expected: the test gets 0 of its 5 points, as a test without subTest does.
# Observed: the test is missing, with its 5 points. It is present only if all subtests pass.
# Output: ['test_plain'] 5.0
# Source: gradescope_utils/autograder_utils/json_test_runner.py, JSONTestResult, which has no
# addSubTest, and unittest, which calls neither addSuccess nor addFailure for such a test.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile gradescope-utils==0.5.0
"$folder/bin/python" - <<'END'
import io
import json
import unittest

from gradescope_utils.autograder_utils.decorators import weight
from gradescope_utils.autograder_utils.json_test_runner import JSONTestRunner


class Tests(unittest.TestCase):
    @weight(5)
    def test_plain(self):
        self.assertTrue(True)

    @weight(5)
    def test_with_subtests(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertLess(number, 2)


file = io.StringIO()
JSONTestRunner(visibility="visible", stream=file).run(
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
)
results = json.loads(file.getvalue())
names = [test["name"].split()[0] for test in results["tests"]]
print(names, results["score"])
assert names == ["test_plain"] and results["score"] == 5
END
