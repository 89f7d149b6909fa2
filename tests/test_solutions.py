"""The student's two files can be anyone's: the whole program runs with other people's solutions.

To run one by hand, copy the project with its files, and start run_vae.py in the copy:
PYTHONPATH=.:tests python -c "from test_solutions import copy_with; copy_with('bare', '/tmp/copy')"
"""

import csv
import math
import re
import runpy
import shutil
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from conftest import ROOT, copy_project
from launching import run_script
from torch.distributed import TCPStore

from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.train import Training

pytestmark = pytest.mark.slow

SOLUTIONS = ROOT / "tests" / "solutions"
NAMES = sorted(path.parent.name for path in SOLUTIONS.glob("*/vae.py"))
PLACES = {"utils.py": "codebase/utils.py", "vae.py": "codebase/models/vae.py"}
MISSING = "run_vae.py: codebase.models.vae has no negative_iwae_bound"
USUAL = ("--nn", "v1", "--iter_save", 10)
BOUNDS = re.compile(r"NELBO: (\S+?)(?: ± \S+)?\. KL: (\S+)\. REC: (\S+) ")


def copy_with(solution: str, folder: str | Path) -> Path:
    """Copy the project into a new folder, with a solution's two files instead of ours.

    Returns:
        the path of its run_vae.py.
    """
    program = copy_project(Path(folder))
    for name, place in PLACES.items():
        shutil.copy(SOLUTIONS / solution / name, program.parent / place)
    return program


@pytest.fixture(params=NAMES, scope="module")
def solution(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def program(solution, tmp_path_factory) -> Path:
    """The command line of a copy of the project with the solution's files."""
    return copy_with(solution, tmp_path_factory.mktemp(solution) / "project")


@pytest.fixture(scope="module")
def run(forking, small):
    """Run a program in a folder, in one process or several, and return their output."""

    def run(script, folder, *arguments, processes=1, status=0):
        folder.mkdir(exist_ok=True)
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        arguments = [str(argument) for argument in (*small, *arguments)]
        started = []
        for rank in range(processes):
            options = (script, arguments, folder, rank, processes, store.port)
            started.append(forking.Process(target=run_script, args=options))
            started[-1].start()
        for process in started:
            process.join()
        output = "".join((folder / f"output-{rank}").read_text() for rank in range(processes))
        assert [process.exitcode for process in started] == [status] * processes, output
        return output

    return run


@pytest.fixture(scope="module")
def trained(run, program) -> tuple[Path, str]:
    """The folder in which the program has trained the usual networks, and its output."""
    here = program.parent.with_name("trained")
    return here, run(program, here, *USUAL, "--iter_max", 20)


def bounds_in(folder: Path) -> dict[tuple[str, str], list[str]]:
    """The bounds in the metrics.csv of a run, by step and images."""
    with open(folder / "metrics.csv", newline="") as file:
        return {(row[0], row[1]): row[2:5] for row in csv.reader(file)}


def folder_in(here: Path, number: int = 0) -> Path:
    """The folder of the run of that number."""
    (folder,) = here.glob(f"checkpoints/model=*_run={number:04d}")
    return folder


def test_a_resumed_run_equals_an_uninterrupted_one(run, program, trained, tmp_path):
    run(program, tmp_path, *USUAL, "--iter_max", 10)
    assert "Resuming at step 10\n" in run(
        program, tmp_path, *USUAL, "--iter_max", 20, "--resume", 1
    )
    whole, stopped = (folder_in(here) for here in (trained[0], tmp_path))
    for name in ("model-00010.pt", "model-00020.pt"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()
    assert bounds_in(whole) == bounds_in(stopped)


def test_a_model_is_loaded_measured_and_plotted(run, program, solution, trained):
    here, output = trained
    loaded = run(
        program, here, *USUAL, "--iter_max", 20, "--train", 0, "--figures", 1, "--explorer", 1
    )
    assert len(BOUNDS.findall(output)) == 2
    assert BOUNDS.findall(loaded) == BOUNDS.findall(output)
    bounds = [float(x) for x in re.findall(r"Negative IWAE-\d+: (\S+)  \(", loaded)]
    if solution == "bare":
        assert bounds == []
        assert loaded.count("run_vae.py: ") == loaded.count(MISSING) == 1
    else:
        assert len(bounds) == 4
        assert bounds == sorted(bounds, reverse=True)
        assert "run_vae.py: " not in loaded
    pictures = {"learning_curve", "reconstructions", "latent_space", "interpolation"}
    pictures |= {"visualizing_result"}
    folder = folder_in(here)
    assert {path.stem for path in folder.glob("*.png")} == pictures
    assert "<html" in (folder / "explorer.html").read_text()


def test_several_runs_equal_single_runs(run, tmp_path):
    program = copy_with("rsample", tmp_path / "project")
    several, single = tmp_path / "several", tmp_path / "single"
    table = run(program, several, "--iter_max", 20, "--runs", 2, "--jobs", 2)
    run(program, single, "--iter_max", 20)
    models = [folder_in(here) / "model-00020.pt" for here in (several, single)]
    assert models[0].read_bytes() == models[1].read_bytes()
    measured = [bounds_in(folder_in(several, number)) for number in (0, 1)]
    assert bounds_in(folder_in(single)) == measured[0] != measured[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    for number, bounds in enumerate(measured):
        expected = [*bounds["20", "test"], bounds["20", "all test"][0]]
        assert all(math.isfinite(float(x)) for x in expected)
        assert rows[2 + number][:5] == [str(number), *(f"{float(x):.2f}" for x in expected)]


def test_processes_share_parameters_and_have_different_noise(run, program, tmp_path):
    arguments = ("--nn", "noting", "--batch_size", 200, "--iter_max", 10)
    run(program, tmp_path, *arguments, processes=2)
    steps = [torch.load(tmp_path / f"noted-{rank}.pt") for rank in (0, 1)]
    noise = [latents for process in steps for latents, _ in process]
    assert [latents.shape for latents in noise] == [(100, 3)] * 20
    assert len(torch.cat(noise).unique(dim=0)) == 20 * 100
    for (_, first), (_, second) in zip(*steps, strict=True):
        assert all(map(torch.equal, first, second))
    model = torch.load(next(tmp_path.glob("checkpoints/*/model-00010.pt")))
    assert all(parameter.isfinite().all() for parameter in model.values())
    assert not torch.equal(model["dec.net.weight"], steps[0][0][1][0])


@pytest.fixture(scope="module")
def reference(synthetic_images, tmp_path_factory):
    """A folder with a model of our solution, some images, and our measurements of them."""
    training = Training(Settings(), torch.device("cpu"))
    for batch in synthetic_images.train.split(100):
        training.take_step(batch)
    folder = tmp_path_factory.mktemp("reference")
    torch.save(training.model.state_dict(), folder / "model.pt")
    torch.save(synthetic_images.subset_bits, folder / "x.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path(str(SOLUTIONS / "measure.py"))
    return folder


@pytest.fixture(scope="module")
def errors(reference):
    """Standard deviations of a single pass over the images: of REC, and of the IWAE bounds."""
    model, x = VAE(z_dim=10), torch.load(reference / "x.pt")
    model.load_state_dict(torch.load(reference / "model.pt"))
    with torch.no_grad():
        passes = [float(model.negative_elbo_bound(x)[2]) for _ in range(20)]
        iwae = {
            iw: [float(model.negative_iwae_bound(x, iw)[0]) for _ in range(10)] for iw in (1, 50)
        }
    return stdev(passes), {iw: stdev(each) for iw, each in iwae.items()}


@pytest.fixture(scope="module")
def theirs(run, program, reference, tmp_path_factory):
    """The solution's measurements of the same model."""
    here = shutil.copytree(reference, tmp_path_factory.mktemp("theirs") / "here")
    (here / "measured.pt").unlink()
    measure = program.with_name("measure.py")
    shutil.copy(SOLUTIONS / measure.name, measure)
    run(measure, here)
    return torch.load(here / "measured.pt", weights_only=False)


def test_bounds_equal_those_of_our_solution(solution, theirs, reference, errors):
    ours = torch.load(reference / "measured.pt", weights_only=False)
    error, iwae_errors = errors
    (nelbo, kl, rec, _), expected = theirs["bounds"], ours["bounds"]
    assert kl == pytest.approx(expected[1], rel=1e-4)
    assert rec == pytest.approx(expected[2], abs=5 * error * math.sqrt(2 / 100))
    assert nelbo == pytest.approx(kl + rec, rel=1e-5)
    torch.testing.assert_close(
        theirs["kl of dimensions"], ours["kl of dimensions"], atol=1e-4, rtol=1e-4
    )
    assert kl == pytest.approx(float(theirs["kl of dimensions"].sum()), rel=1e-4)
    for iw, value in theirs.get("iwae", {}).items():
        assert value == pytest.approx(ours["iwae"][iw], abs=5 * iwae_errors[iw] * math.sqrt(2))
    assert ("iwae" in theirs) == (solution != "bare")


def test_samples_come_from_the_prior_and_are_binary(theirs):
    z, x, probabilities = theirs["sampled"]
    for latents in (z, *theirs["sampled at"]):
        assert latents.shape == (200, 10)
        assert len(latents.unique(dim=0)) == 200
        assert abs(fmean(latents.flatten().tolist())) < 5 / math.sqrt(2000)
        assert abs(stdev(latents.flatten().tolist()) - 1) < 5 / math.sqrt(4000)
    assert len(theirs["sampled at"]) == 2
    assert set(x.unique().tolist()) == {0, 1}
    assert x.shape == probabilities.shape == (200, 784)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_diverged_training_is_a_sentence(run, tmp_path):
    """torch.distributions may raise an error before the program checks the loss."""
    program = copy_with("rsample", tmp_path / "project")
    arguments = ("--nn", "v1", "--lr", 1e9, "--iter_max", 200)
    output = run(program, tmp_path / "here", *arguments, status=1)
    assert output.splitlines()[-1].startswith("run_vae.py: the training diverged")
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
    assert "Traceback" in output
    assert "pip" not in output
    last = output.splitlines()[-1]
    assert sentence in last
    assert f'File "{file}", line {number + 1}, in ' in output or last.endswith(f"({file})")


def test_a_bound_that_is_not_written_yet_is_a_sentence(run, tmp_path):
    program = copy_with("bare", tmp_path / "project")
    method = "    def negative_iwae_bound(self, x, iw):\n        raise NotImplementedError\n"
    with open(program.parent / PLACES["vae.py"], "a") as file:
        file.write(f"\n{method}")
    run(program, tmp_path / "here", "--iter_max", 1)
    output = run(program, tmp_path / "here", "--iter_max", 1, "--train", 0)
    sentence = "run_vae.py: negative_iwae_bound of codebase.models.vae is not written yet\n"
    assert output.count("run_vae.py: ") == output.count(sentence) == 1
    assert "Visualization saved" in output
