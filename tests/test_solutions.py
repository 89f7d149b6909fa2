"""The student's two files can be anyone's: the whole program runs with other people's solutions.

To run one by hand, copy the project with its files, and start run_vae.py in the copy:
PYTHONPATH=.:tests python -c "from test_solutions import copy_with; copy_with('bare', '/tmp/copy')"
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, copy_project
from launching import run_script

pytestmark = pytest.mark.slow

SOLUTIONS = ROOT / "tests" / "solutions"
PLACES = {"utils.py": "codebase/utils.py", "vae.py": "codebase/models/vae.py"}


def copy_with(solution: str, folder: str | Path) -> Path:
    """Copy the project with a solution's two files instead of ours; return its run_vae.py."""
    program = copy_project(Path(folder))
    for name, place in PLACES.items():
        shutil.copy(SOLUTIONS / solution / name, program.parent / place)
    return program


@pytest.fixture(scope="module")
def run(forking, small):
    """Run a program in a folder, and return its output."""

    def run(script, folder, *arguments, status=0):
        folder.mkdir(exist_ok=True)
        arguments = [str(argument) for argument in (*small, *arguments)]
        process = forking.Process(target=run_script, args=(script, arguments, folder, 0, 1, 0))
        process.start()
        process.join()
        output = (folder / "output-0").read_text()
        assert process.exitcode == status, output
        return output

    return run


@pytest.fixture(scope="module")
def ours(run, script, tmp_path_factory) -> Path:
    """A folder with a model of our solution, and its measurements."""
    folder = tmp_path_factory.mktemp("ours")
    run(script, folder, "--train", 2)
    return folder


def results_in(folder: Path) -> dict:
    (path,) = folder.glob("checkpoints/*/results-00030.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("solution", ["bare", "randn_like_v"])
def test_the_program_trains_resumes_and_reports_with_any_solution(run, ours, solution, tmp_path):
    """The first has only the first tasks, and the second takes only arguments of equal shape."""
    program = copy_with(solution, tmp_path / "project")
    own = program.with_name("own.py")
    own.write_text("import codebase.train\n")  # The second's utils.py imports its vae.py.
    run(own, tmp_path / "own")
    whole, stopped, loaded = (tmp_path / name for name in ("whole", "stopped", "loaded"))
    run(program, whole, "--iter_save", 10)
    run(program, stopped, "--iter_max", 10)
    assert "Resuming at step 10\n" in run(program, stopped, "--resume", 1)
    first, second = (next(x.glob("*/*/model-00030.pt")) for x in (whole, stopped))
    assert first.read_bytes() == second.read_bytes()

    # It measures our model as we do, and makes all pictures of it.
    shutil.copytree(ours, loaded)
    output = run(program, loaded, "--train", 0, "--figures", 1, "--explorer", 1)
    expected, found = results_in(ours), results_in(loaded)
    for images in ("test", "all test"):
        for bound in ("NELBO", "KL", "REC"):
            assert found[images][bound] == pytest.approx(expected[images][bound], rel=0.01)
    key = "KL of each latent dimension"
    assert found[key] == pytest.approx(expected[key], rel=1e-4)
    assert len(re.findall(r"Negative IWAE-\d+: ", output)) == (0 if solution == "bare" else 4)
    assert output.count("run_vae.py: ") == (solution == "bare")
    assert output.count("has no negative_iwae_bound") == (solution == "bare")
    pictures = [path.suffix for path in loaded.glob("checkpoints/*/*")]
    assert pictures.count(".png") == 5 and pictures.count(".html") == 1
    if solution == "bare":  # Status 3 says that something is missing which was asked for.
        run(program, loaded, "--train", 0, "--iwae", 2, status=3)


def test_a_mistake_in_a_students_file_is_a_traceback(run, tmp_path):
    program = copy_with("bare", tmp_path / "project")
    file = program.parent / PLACES["vae.py"]
    file.write_text(f"import tensorflow\n{file.read_text()}")
    output = run(program, tmp_path / "here", status=1)
    assert f'File "{file}", line 1, in <module>' in output
    assert "Traceback" in output and "pip" not in output
