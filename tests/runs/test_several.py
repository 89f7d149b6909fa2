"""Several runs and their table."""

import csv
import os
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from codebase.replicates import COLUMNS, Outcome, make_table, save_table, table_path
from conftest import NETWORKS

from codebase import checkpoint, evaluate
from codebase.models import nns
from codebase.settings import Settings
from codebase.train import train

CPU = torch.device("cpu")
RUNS = [Settings(run=run, iter_max=500, lr=0.002) for run in range(3)]
OUTCOMES = {
    0: Outcome([100.0, 20.0, 80.0, 99.0], 61.9),
    1: "failed: no",
    2: Outcome([102.5, 19.0, 83.5, 98.0], 3600),
}


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_table_averages_the_finished_runs():
    table = make_table(RUNS, OUTCOMES)
    assert table[:3] == [
        ["0", "100.0000", "20.0000", "80.0000", "99.0000", "01:01", "500", "mnist"],
        ["1", "failed: no", "", "", "", "", "500", "mnist"],
        ["2", "102.5000", "19.0000", "83.5000", "98.0000", "60:00", "500", "mnist"],
    ]
    finished = np.array([OUTCOMES[0].bounds, OUTCOMES[2].bounds])
    for line, name, values in [
        (table[3], "average", finished.mean(0)),
        (table[4], "standard deviation", finished.std(0, ddof=1)),
    ]:
        assert line == [name, *(f"{value:.4f}" for value in values), "", "", ""]
    assert {len(line) for line in table} == {len(COLUMNS)}
    assert len(table) == 5


def test_there_is_no_statistic_of_too_few_runs():
    assert [line[0] for line in make_table(RUNS[:1], OUTCOMES)] == ["0", "average"]
    assert make_table(RUNS[1:2], OUTCOMES) == [["1", "failed: no", "", "", "", "", "500", "mnist"]]
    untimed = {0: Outcome(OUTCOMES[0].bounds, None)}
    assert make_table(RUNS[:1], untimed)[0][4:6] == ["99.0000", ""]


def test_the_file_says_what_was_run():
    assert str(table_path(RUNS)) == (
        "checkpoints/model=vae_z=10_lr=0.002_run=0000-0002_steps=500.csv"
    )
    longer = [settings._replace(iter_max=1000) for settings in RUNS]
    assert len({table_path(RUNS), table_path(RUNS[:2]), table_path(longer)}) == 3


def test_fewer_finished_runs_never_replace_more(tmp_path, capsys):
    path = tmp_path / "checkpoints" / "table.csv"
    table = make_table(RUNS, OUTCOMES)
    save_table(path, table)
    assert read(path) == [[*COLUMNS], *table]
    assert capsys.readouterr().err == f"Saved to {path}\n"
    before = path.read_bytes()
    fewer = make_table(RUNS, OUTCOMES | {0: "failed: yes, and with a , in it"})
    save_table(path, fewer)
    assert path.read_bytes() == before
    assert capsys.readouterr().err == f"Kept {path}, in which more runs are finished\n"
    for other in (OUTCOMES | {2: OUTCOMES[0]}, OUTCOMES | {1: OUTCOMES[0]}):
        save_table(path, make_table(RUNS, other))
        assert read(path)[1:] == make_table(RUNS, other)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"a" * 1_000_000, b'"', b"1\n2,3\n"])
def test_a_damaged_table_is_replaced(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    save_table(path, make_table(RUNS, OUTCOMES))
    assert read(path)[1:] == make_table(RUNS, OUTCOMES)


@pytest.fixture
def alone(tmp_path, synthetic_images, monkeypatch):
    """Train a run alone and measure it: its model's bytes, and its bounds as cells of the table."""

    def alone(settings):
        monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
        (tmp_path / "alone").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "alone")
        model = train(settings, synthetic_images, CPU)
        path = checkpoint.model_path(checkpoint.run_folder(settings), settings.iter_max)
        subset, everything = evaluate.measure(model, synthetic_images).values()
        return path.read_bytes(), [f"{value:.4f}" for value in (*subset, everything.nelbo)]

    return alone


@pytest.mark.slow
def test_the_table_is_of_the_runs_as_they_are_alone(start, script, small, tmp_path, alone):
    chosen = Settings("watched", 3, 50, 5e-4, "linear", "synthetic", 2, 30)
    both = [chosen, chosen._replace(run=3)]
    folders = [tmp_path / checkpoint.run_folder(settings) for settings in both]
    path = tmp_path / table_path(both)
    models = [checkpoint.model_path(folder, 30) for folder in folders]
    options = (*small, "--nn", "watched", "--batch_size", 50, "--lr", 5e-4, "--run", 2, "--runs", 2)
    options += ("--lr_schedule", "linear", "--iter_save", 20)

    def replicate(threads, *arguments, **streams):
        for told in tmp_path.glob("process-*"):
            told.unlink()
        # Else there would be no more threads than cores.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE"}
        process = start(script, *options, *arguments, env=environment, **streams)
        output, errors = process.communicate()
        assert "Traceback" not in errors
        # A page that cannot be written costs no bounds.
        assert errors.count("cannot be put into a page") == 2 * ("--explorer" in arguments)
        anew = not {"--resume", "--train"} & {*arguments}
        assert errors.count("Earlier runs are now NAME.1, ") == anew
        jobs, share = re.search(
            r"2 runs, (\d) at a time, threads for each: (\d)\n", errors
        ).groups()
        told = [path.name.split("-") for path in tmp_path.glob("process-*")]
        assert {threads for *_, threads, _ in told} == {share}
        return process.returncode, output, int(jobs), int(share)

    # A file in the place of its folder stops the first run, and not the second one.
    folders[1].mkdir(parents=True)
    folders[0].write_text("in the way")
    checkpoint.state_path(folders[1]).write_text("of an earlier run")
    status, output, jobs, share = replicate(1)
    assert (status, jobs, share) == (1, 1, 1)
    expected, cells = alone(both[1])
    assert models[1].read_bytes() == expected
    earlier = Path(f"{folders[1]}.1")
    assert checkpoint.state_path(earlier).read_text() == "of an earlier run"
    header, failed, finished, average = read(path)
    assert header == [*COLUMNS]
    reason = f"failed: checkpoints/{folders[0].name}: File exists"
    assert failed == ["2", reason, "", "", "", "", "30", "synthetic"]
    assert finished == ["3", *cells, finished[5], "30", "synthetic"]
    assert average == ["average", *cells, "", "", ""]
    assert re.fullmatch(r"00:\d\d|\d\d:\d\d", finished[5])
    title, empty, *lines = output.splitlines()
    assert title == f"Bounds in nats per image, {path.stem}"
    table = [header, ["---"] * len(COLUMNS), failed, finished, average]
    assert [empty, *lines] == ["", *(f"| {' | '.join(line)} |" for line in table)]

    # Gone on with, only the first run is trained.
    folders[0].unlink()
    seconds = [checkpoint.training_seconds(folders[1], 30)]
    status, output, jobs, share = replicate(2, "--resume", 1)
    assert (status, jobs, share) == (0, 2, 1)
    assert seconds == [checkpoint.training_seconds(folders[1], 30)] != [None]
    first, second, average, deviation = read(path)[1:]
    expected, cells = alone(both[0])
    assert models[0].read_bytes() == expected
    assert first == ["2", *cells, first[5], "30", "synthetic"]
    assert second == finished
    for k in range(1, 5):
        pair = float(first[k]), float(second[k])
        assert float(average[k]) == pytest.approx(statistics.mean(pair), abs=1e-4)
        assert float(deviation[k]) == pytest.approx(statistics.stdev(pair), abs=1e-4)

    # Loaded, they give the same table, which is saved even if nobody reads it.
    path.unlink()
    reader, writer = os.pipe()
    os.close(reader)
    status, _, jobs, share = replicate(
        *(5, "--jobs", 2, "--train", 0, "--figures", 1, "--explorer", 1), stdout=writer
    )
    os.close(writer)
    assert (status, jobs, share) == (1, 2, 2)
    for folder in folders:
        assert checkpoint.saved_steps(folder) == [20, 30]
        assert (folder / "latent_space.png").exists()
    for loaded, line in zip(read(path)[1:3], (first, second), strict=True):
        assert loaded[5:] == line[5:]
        bounds = [float(cell) for cell in line[1:5]]
        assert [float(cell) for cell in loaded[1:5]] == pytest.approx(bounds, abs=0.01)
