"""Several runs from the command line: what becomes of each, and their table."""

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
from codebase.runs.folder import model_path, run_folder, saved_steps, state_path
from codebase.runs.metrics import read_metrics
from codebase.runs.table import COLUMNS
from codebase.settings import Settings
from codebase.train import train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def several(start, script, small, tmp_path):
    """Start the command line for the runs 2 and 3, and check what it says of their processes.

    Gives the exit status, standard output, standard error and the lines that were saved.
    """

    def several(*arguments, threads=1, jobs=1, **streams):
        # Else there would be no more threads than cores.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
        options = (*small, *OPTIONS, "--run", 2, "--runs", 2, *arguments)
        process = start(script, *options, env=environment, **streams)
        output, errors = process.communicate()
        assert "Traceback" not in errors
        share = threads // jobs
        assert f"2 runs, {jobs} at a time, threads for each: {share}\n" in errors
        told = [path.name.split("-") for path in tmp_path.glob("process-*")]
        assert {int(threads) for *_, threads, _ in told} == {share}
        [path] = tmp_path.glob("checkpoints/*.csv")
        assert path.name == f"{BOTH[0].name}-0003_steps=30.csv"
        assert f"Saved to checkpoints/{path.name}\n" in errors
        with open(path, newline="") as file:
            header, *table = csv.reader(file)
        assert header == [*COLUMNS[:5], "seconds", *COLUMNS[6:]]
        return process.returncode, output, errors, table

    return several


def printed(output):
    """The cells of the lines that a table has on the screen."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[2:]]


OPTIONS = ("--nn", "watched", "--batch_size", 50, "--lr", 5e-4, "--lr_schedule", "linear")
OPTIONS += ("--iter_save", 20)
BOTH = [
    Settings("watched", 3, 50, 5e-4, "linear", iter_max=30, dataset="synthetic", run=run)
    for run in (2, 3)
]


@pytest.fixture
def alone(synthetic_images, monkeypatch, tmp_path):
    """Train a run alone and measure it: its model's bytes, and its bounds as cells of the table."""

    def alone(settings):
        with monkeypatch.context() as patch:
            patch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
            (tmp_path / "alone").mkdir(exist_ok=True)
            patch.chdir(tmp_path / "alone")
            model = train(settings, synthetic_images, CPU)
            path = model_path(run_folder(settings), settings.iter_max)
            subset, everything = evaluate.measure(model, synthetic_images).values()
            return path.read_bytes(), [f"{value:.4f}" for value in (*subset, everything.nelbo)]

    return alone


def test_a_run_that_cannot_train_stops_no_other_and_the_table_names_it(several, alone):
    """A file in the place of its folder stops the first run, and not the second one."""
    folders = [run_folder(settings) for settings in BOTH]
    folders[1].mkdir(parents=True)
    folders[0].write_text("in the way")
    state_path(folders[1]).write_text("of an earlier run")
    status, output, errors, table = several()
    assert status == 1
    kept = f"Earlier runs are kept under other names, such as {folders[1].name}.1; --resume 1 would"
    assert errors.count(kept) == 1
    assert state_path(Path(f"{folders[1]}.1")).read_text() == "of an earlier run"
    expected, cells = alone(BOTH[1])
    assert model_path(folders[1], 30).read_bytes() == expected
    failed, finished, average = printed(output)
    reason = f"failed: checkpoints/{folders[0].name}: File exists"
    assert failed == ["2", reason, "", "", "", "", "30", "synthetic"]
    assert finished == ["3", *cells, finished[5], "30", "synthetic"]
    assert re.fullmatch(r"\d\d:\d\d", finished[5])
    assert average == ["average", *cells, "", "", ""]
    # Standard output is the table's alone.
    title, empty, *lines = output.splitlines()
    assert (title, empty) == (f"Bounds in nats per image, {BOTH[0].name}-0003_steps=30", "")
    shown = [COLUMNS, ["---"] * len(COLUMNS), failed, finished, average]
    assert lines == [f"| {' | '.join(line)} |" for line in shown]
    ((run, *numbers),) = table  # what failed is no number
    assert [run, *(f"{float(number):.4f}" for number in numbers[:4])] == ["3", *cells]
    assert numbers[5:] == ["30", "synthetic"]


def test_runs_that_are_gone_on_with_take_the_steps_that_lack(several, run_vae, small, alone):
    """One is finished, and one is not begun; each is the run that it is alone."""
    assert run_vae(*small, *OPTIONS, "--run", 3).returncode == 0
    for told in Path().glob("process-*"):
        told.unlink()
    folders = [run_folder(settings) for settings in BOTH]
    before = (folders[1] / "metrics.csv").read_bytes()
    for folder in folders:
        picture = folder / "visualizing_result.png"
        picture.unlink(missing_ok=True)
        picture.mkdir(parents=True)
    status, output, errors, saved = several("--resume", 1, threads=2, jobs=2)
    table = printed(output)
    assert status == 0
    for run, folder in zip((2, 3), folders, strict=True):  # a picture costs no bounds
        sentence = f"run {run}: {folder / 'visualizing_result.png'}: Is a directory\n"
        assert errors.count(sentence) == 1
    assert "Earlier runs" not in errors
    assert (folders[1] / "metrics.csv").read_bytes() == before  # nothing is measured again
    for folder, settings, line in zip(folders, BOTH, table[:2], strict=True):
        expected, cells = alone(settings)
        assert model_path(folder, 30).read_bytes() == expected
        assert line == [str(settings.run), *cells, line[5], "30", "synthetic"]
        minutes, seconds = map(int, line[5].split(":"))
        assert 60 * minutes + seconds == int(read_metrics(folder)[-1].seconds)
    assert [line[0] for line in saved] == ["2", "3"]
    first, second, average, deviation = table
    for k in range(1, 5):
        pair = float(first[k]), float(second[k])
        assert float(average[k]) == pytest.approx(mean(pair), abs=1e-4)
        assert float(deviation[k]) == pytest.approx(stdev(pair), abs=1e-4)


def test_runs_that_are_loaded_are_measured_and_drawn_even_if_nobody_reads_the_table(
    several, run_vae, small
):
    trained = [run_vae(*small, *OPTIONS, "--run", run) for run in (2, 3)]
    assert [finished.returncode for finished in trained] == [0, 0]
    for told in Path().glob("process-*"):
        told.unlink()
    folders = [run_folder(settings) for settings in BOTH]
    before = [read_metrics(folder) for folder in folders]
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("--jobs", 2, "--train", 0, "--figures", 1)
    status, _, _, table = several(*arguments, threads=5, jobs=2, stdout=writer)
    os.close(writer)
    assert status == 1  # since the table could not be printed
    for folder, rows, line in zip(folders, before, table[:2], strict=True):
        assert saved_steps(folder) == [20, 30]
        assert (folder / "latent_space.png").exists()
        on_test, on_all = rows[-2:]
        assert float(line[5]) == on_test.seconds
        # With more threads sums are taken in another order.
        expected = [*on_test.bounds, on_all.nelbo]
        assert [float(cell) for cell in line[1:5]] == pytest.approx(expected, abs=0.01)
