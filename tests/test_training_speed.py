"""The benchmark."""

import re
import runpy
import sys

import pytest
import torch
from conftest import ROOT


@pytest.fixture
def training_speed(monkeypatch, capsys):
    """Run the benchmark in this process: its exit status and what it prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["training_speed.py", *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(ROOT / "benchmarks" / "training_speed.py"), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.mark.slow
def test_the_benchmark_prints_its_table(training_speed, synthetic_dir):
    options = ("--dataset", "synthetic", "--data_dir", synthetic_dir, "--steps", 5, "--threads", 1)
    status, output, errors = training_speed(*options)
    assert status == 0, errors
    machine, _, _, _, conventional, project, products, *_ = output.splitlines()
    assert re.search(r" 1 threads, synthetic, 7 rounds of 5 steps, load \d+\.\d at", machine)
    assert conventional.startswith("| conventional loop |")
    assert conventional.endswith("| 1.00 |")
    assert project.startswith("| this project |")
    assert products.startswith("| matrix products alone |")
    for line in (conventional, project, products):
        median, extremes, rate = (cell.strip() for cell in line.split("|")[2:5])
        least, most = map(float, extremes.split(" to "))
        assert 0 < least <= float(median) <= most
        assert float(rate) == pytest.approx(1000 / float(median), rel=0.05, abs=1)


@pytest.mark.slow
def test_without_jax_the_benchmark_says_so_and_times_the_rest(
    training_speed, synthetic_dir, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ("--dataset", "synthetic", "--data_dir", synthetic_dir, "--steps", 1)
    status, output, errors = training_speed("--against", "jax", *options)
    assert status == 0, errors
    assert "jax and optax not installed (pip install jax optax)" in output
    assert "| this project |" in output
    assert "| JAX" not in output


@pytest.mark.slow
def test_bad_input_to_the_benchmark_gets_one_sentence(training_speed, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for arguments in [("--steps", 0), ("--data_dir", tmp_path / "file"), ("--device", "abacus")]:
        status, output, errors = training_speed("--dataset", "synthetic", *arguments)
        assert (status, output) == (2, "")
        assert errors.splitlines()[-1].startswith("training_speed.py: ")
        assert "Traceback" not in errors
