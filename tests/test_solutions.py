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
NAMES = sorted(path.parent.name for path in SOLUTIONS.glob("*/vae.py"))
PLACES = {"utils.py": "codebase/utils.py", "vae.py": "codebase/models/vae.py"}


def copy_with(solution: str, folder: str | Path) -> Path:
    """Copy the project into a new folder, with a solution's two files instead of ours.

    Returns:
        the path of its run_vae.py.
    """
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


@pytest.mark.parametrize("solution", NAMES)
def test_the_program_trains_resumes_and_reports_with_any_solution(run, ours, solution, tmp_path):
    program = copy_with(solution, tmp_path / "project")
    whole, stopped, loaded = (tmp_path / name for name in ("whole", "stopped", "loaded"))
    run(program, whole, "--iter_save", 10)
    run(program, stopped, "--iter_max", 10)
    output = run(program, stopped, "--iter_save", 10, "--resume", 1)
    assert "Resuming at step 10\n" in output
    for step in (10, 30):
        first, second = (next(x.glob(f"*/*/model-000{step}.pt")) for x in (whole, stopped))
        assert first.read_bytes() == second.read_bytes()

    # It measures our model as we do, and makes all pictures of it.
    shutil.copytree(ours, loaded)
    output = run(program, loaded, "--train", 0, "--figures", 1, "--explorer", 1)
    expected, found = results_in(ours), results_in(loaded)
    for images in ("test", "all test"):
        assert found[images]["KL"] == pytest.approx(expected[images]["KL"], rel=1e-4)
        assert found[images]["REC"] == pytest.approx(expected[images]["REC"], rel=0.01)
        parts = found[images]["KL"] + found[images]["REC"]
        assert found[images]["NELBO"] == pytest.approx(parts, rel=1e-5)
    key = "KL of each latent dimension"
    assert found[key] == pytest.approx(expected[key], rel=1e-4)
    bounds = re.findall(r"Negative IWAE-\d+: (\S+) ", output)
    assert [float(x) for x in bounds] == sorted(map(float, bounds), reverse=True)
    assert len(bounds) == (0 if solution == "bare" else 4)
    sentences = [line for line in output.splitlines() if line.startswith("run_vae.py: ")]
    assert len(sentences) == (solution == "bare")
    assert all("has no negative_iwae_bound" in sentence for sentence in sentences)
    folder = next(loaded.glob("checkpoints/model=*"))
    names = {"learning_curve", "reconstructions", "latent_space", "interpolation"}
    assert {path.stem for path in folder.glob("*.png")} == names | {"visualizing_result"}
    assert "<html" in (folder / "explorer.html").read_text()


def test_a_diverged_training_is_a_sentence(run, tmp_path):
    """torch.distributions may raise an error before the program checks the loss."""
    program = copy_with("rsample", tmp_path / "project")
    arguments = ("--nn", "v1", "--lr", 1e9, "--iter_max", 200)
    output = run(program, tmp_path / "here", *arguments, status=1)
    assert "diverged" in output.splitlines()[-1]
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("name", "right", "wrong", "sentence"),
    [
        ("vae.py", "return kl + rec, kl, rec", "return kl + rek, kl, rec", "name 'rek' is not"),
        ("vae.py", "self.enc.encode(x)", "self.encoder.encode(x)", "no attribute 'encoder'"),
        ("vae.py", "import torch", "import tensorflow", "No module named 'tensorflow'"),
        ("vae.py", "class VAE", "class Autoencoder", "cannot import name 'VAE'"),
    ],
)
def test_a_mistake_in_a_students_file_is_a_traceback(run, tmp_path, name, right, wrong, sentence):
    program = copy_with("bare", tmp_path / "project")
    file = program.parent / PLACES[name]
    lines = file.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if right in line)
    lines[number] = lines[number].replace(right, wrong)
    file.write_text("\n".join(lines))
    output = run(program, tmp_path / "here", status=1)
    last = output.splitlines()[-1]
    assert "Traceback" in output and sentence in last and "pip" not in output
    assert f'File "{file}", line {number + 1}, in ' in output or last.endswith(f"({file})")


def test_a_bound_that_is_not_written_yet_is_a_sentence(run, ours, tmp_path):
    program = copy_with("bare", tmp_path / "project")
    method = "    def negative_iwae_bound(self, x, iw):\n        raise NotImplementedError\n"
    with open(program.parent / PLACES["vae.py"], "a") as file:
        file.write(f"\n{method}")
    shutil.copytree(ours, tmp_path / "here")
    output = run(program, tmp_path / "here", "--train", 0)
    (sentence,) = [line for line in output.splitlines() if line.startswith("run_vae.py: ")]
    assert "negative_iwae_bound" in sentence and "not written yet" in sentence
    assert "Visualization saved" in output
    run(program, tmp_path / "here", "--train", 0, "--iwae", 5, status=3)  # was asked for
