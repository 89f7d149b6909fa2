"""Several runs from the command line: their files and their table."""

import csv
import os
import re
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from conftest import NETWORKS

from codebase import evaluate
from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_results
from codebase.settings import Settings
from codebase.train import train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
BOUNDS = ["NELBO", "KL", "REC", "NELBO, all test images"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def several(start, script, small, tmp_path):
    """Start the command line for the runs 2 and 3, and check their numbers of threads.

    Returns the exit status, standard output, standard error and the lines that were saved.
    """

    def several(*arguments, threads=1, jobs=1, **streams):
        # Without MKL_DYNAMIC, there would be no more threads than cores.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
        options = (*small, *OPTIONS, "--run", 2, "--runs", 2, *arguments)
        process = start(script, *options, env=environment, **streams)
        output, errors = process.communicate()
        assert "Traceback" not in errors
        share = threads // jobs
        assert f"2 runs, {jobs} at a time, threads for each: {share}\n" in errors
        files = [path.name.split("-") for path in tmp_path.glob("process-*")]
        assert {int(threads) for *_, threads, _ in files} == {share}
        [path] = tmp_path.glob("checkpoints/*.csv")
        assert path.name == f"{BOTH[0].name}-0003_steps=30.csv"
        assert f"Saved to checkpoints/{path.name}\n" in errors
        with open(path, newline="") as file:
            header, *table = csv.reader(file)
        assert header == ["run", *BOUNDS, "seconds", "steps", "data"]
        return process.returncode, output, errors, table

    return several


def printed(output):
    """The cells of a table on the screen, without its header."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[2:]]


OPTIONS = ("--nn", "watched", "--batch_size", 50, "--lr", 5e-4, "--lr_schedule", "linear")
OPTIONS += ("--iter_save", 20)
BOTH = [
    Settings("watched", 3, 50, 5e-4, "linear", iter_max=30, dataset="synthetic", run=run)
    for run in (2, 3)
]
FOLDERS = [RunFolder(settings) for settings in BOTH]


@pytest.fixture
def alone(synthetic_images, monkeypatch, tmp_path):
    """Train a run in this process: the bytes of its model, and its bounds as cells of the table."""

    def alone(settings):
        with monkeypatch.context() as patch:
            patch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
            (tmp_path / "alone").mkdir(exist_ok=True)
            patch.chdir(tmp_path / "alone")
            model, _ = train(settings, synthetic_images, CPU)
            subset, everything, *_ = evaluate.measure(model, synthetic_images)
            cells = [f"{value:.2f}" for value in (*subset[:3], everything.nelbo)]
            return RunFolder(settings).model(30).read_bytes(), cells

    return alone


def test_a_run_that_cannot_train_stops_no_other_and_the_table_names_it(several, alone):
    """A file in the place of its folder stops the first run."""
    first, second = FOLDERS
    second.path.mkdir(parents=True)
    first.path.write_text("in the way")
    second.state.write_text("of an earlier run")
    status, output, errors, table = several()
    assert status == 1
    assert errors.count(f"{second.path.name}.1; --resume 1") == 1
    assert Path(f"{second.path}.1", second.state.name).read_text() == "of an earlier run"
    expected, cells = alone(BOTH[1])
    assert second.model(30).read_bytes() == expected
    failed, finished, average = printed(output)
    reason = f"failed: {first.path}: File exists"
    assert failed == ["2", reason, "", "", "", "", "30", "synthetic"]
    assert finished == ["3", *cells, finished[5], "30", "synthetic"]
    assert re.fullmatch(r"\d\d:\d\d", finished[5])
    assert average == ["average", *cells, "", "", ""]
    # Standard output holds nothing but the table.
    title, empty, *lines = output.splitlines()
    assert title.endswith(f"{BOTH[0].name}-0003_steps=30") and empty == ""
    header = ["run", *BOUNDS, "training time", "steps", "data"]
    shown = [header, ["---"] * len(header), failed, finished, average]
    assert lines == [f"| {' | '.join(line)} |" for line in shown]
    ((run, *numbers),) = table  # the failed run has no line
    assert [run, *(f"{float(number):.2f}" for number in numbers[:4])] == ["3", *cells]
    assert numbers[5:] == ["30", "synthetic"]


def test_resumed_runs_take_the_missing_steps(several, run_vae, small, alone):
    """The second run is complete, and the first one has not begun."""
    assert run_vae(*small, *OPTIONS, "--run", 3).returncode == 0
    for file in Path().glob("process-*"):
        file.unlink()
    before = FOLDERS[1].metrics.read_bytes(), read_results(FOLDERS[1], 30)
    for folder in FOLDERS:
        picture = folder.path / "visualizing_result.png"
        picture.unlink(missing_ok=True)
        picture.mkdir(parents=True)
    status, output, errors, saved = several("--resume", 1, threads=2, jobs=2)
    table = printed(output)
    assert status == 0
    for run, folder in zip((2, 3), FOLDERS, strict=True):  # a picture that fails costs no bounds
        message = f"run {run}: {folder.path / 'visualizing_result.png'}: Is a directory\n"
        assert errors.count(message) == 1
    assert "Earlier runs" not in errors
    assert (FOLDERS[1].metrics.read_bytes(), read_results(FOLDERS[1], 30)) == before
    for folder, settings, line in zip(FOLDERS, BOTH, table[:2], strict=True):
        expected, cells = alone(settings)
        assert folder.model(30).read_bytes() == expected
        assert line == [str(settings.run), *cells, line[5], "30", "synthetic"]
        minutes, seconds = map(int, line[5].split(":"))
        assert 60 * minutes + seconds == int(read_results(folder, 30).seconds)
    assert [line[0] for line in saved] == ["2", "3"]
    first, second, average, deviation = table
    for k in range(1, 5):
        pair = float(first[k]), float(second[k])
        assert float(average[k]) == pytest.approx(mean(pair), abs=0.02)
        assert float(deviation[k]) == pytest.approx(stdev(pair), abs=0.02)


def test_loaded_runs_are_measured_and_plotted_even_if_nobody_reads_the_table(
    several, run_vae, small
):
    trained = [run_vae(*small, *OPTIONS, "--run", run) for run in (2, 3)]
    assert [finished.returncode for finished in trained] == [0, 0]
    for file in Path().glob("process-*"):
        file.unlink()
    before = [read_results(folder, 30) for folder in FOLDERS]
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("--jobs", 2, "--train", 0, "--figures", 1)
    status, _, _, table = several(*arguments, threads=5, jobs=2, stdout=writer)
    os.close(writer)
    assert status == 1  # because the table could not be printed
    for folder, (subset, everything, _, seconds), line in zip(FOLDERS, before, table, strict=True):
        assert folder.saved_steps() == [20, 30]
        assert (folder.path / "latent_space.png").exists()
        assert float(line[5]) == seconds
        # With more threads, sums are taken in another order.
        expected = [*subset[:3], everything.nelbo]
        assert [float(cell) for cell in line[1:5]] == pytest.approx(expected, abs=0.01)


def test_only_a_single_run_leaves_its_picture_in_the_current_folder(start, script, run_vae):
    picture, options = Path("visualizing_result.png"), ("--dataset", "synthetic", "--iter_max", 1)
    process = start(script, *options, "--runs", 2)
    assert (process.wait(), picture.exists()) == (0, False)
    assert run_vae(*options, "--resume", 1).returncode == 0
    [first, second] = sorted(Path().glob("checkpoints/*/*.png"))
    assert picture.read_bytes() == first.read_bytes() != second.read_bytes()
