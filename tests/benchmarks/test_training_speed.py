"""The benchmark."""

import os
import re
import runpy
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from codebase.compute import processor

BENCHMARK = ROOT / "benchmarks" / "training_speed.py"


@pytest.fixture
def training_speed(monkeypatch, capsys):
    """Run the benchmark in this process, and return its exit status and its output."""
    # PyTorch has read the environment already, and other tests must not notice a change.
    monkeypatch.setattr(processor, "prepare_environment", lambda: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [BENCHMARK.name, *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(BENCHMARK), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # The tests choose another number.
    yield run
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_benchmark_prints_its_table(training_speed):
    options = ("--dataset", "synthetic", "--steps", 5, "--threads", 1)
    status, output, errors = training_speed(*options)
    assert status == 0, errors
    machine, _, _, _, conventional, project, recipe, products, *_ = output.splitlines()
    assert re.search(r" 1 threads, synthetic, 7 rounds of 5 steps, load average \d+\.\d ", machine)
    assert conventional.startswith("| conventional loop |")
    assert conventional.endswith("| 1.00 |")
    assert project.startswith("| this project |")
    assert products.startswith("| matrix products alone |")
    assert recipe.startswith("| its recipe |")
    words = r"bound: (\d+) s by 20,000 steps of the conventional loop, (\d+) s by 4,000 of the "
    seconds = re.search(words, output).groups()
    for line, steps, shown in ((conventional, 20_000, seconds[0]), (recipe, 4_000, seconds[1])):
        assert int(shown) == pytest.approx(float(line.split("|")[2]) * steps / 1000, abs=1)
    for line in (conventional, project, recipe, products):
        median, extremes, rate = (cell.strip() for cell in line.split("|")[2:5])
        least, most = map(float, extremes.split(" to "))
        assert 0 < least <= float(median) <= most
        assert float(rate) == pytest.approx(1000 / float(median), rel=0.05, abs=1)


@pytest.mark.slow
def test_without_jax_the_benchmark_times_the_rest(training_speed, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ("--against", "jax", "--dataset", "synthetic", "--steps", 1, "--threads", 1)
    status, output, errors = training_speed(*options)
    assert status == 0, errors
    assert "pip install jax optax" in output
    assert "| this project |" in output
    assert "| JAX" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--steps", 0), "argument --steps: "),
        (("--device", "abacus"), "argument --device: "),
        (("--dataset", "letters"), "argument --dataset: "),
        (("--dataset", "mnist", "--data_dir", BENCHMARK), "MNIST is not in "),
    ],
)
def test_a_wrong_argument_gets_one_sentence(training_speed, arguments, words):
    status, output, errors = training_speed(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(f"training_speed.py: {words}")
    assert errors.count("\n") == 1


def test_the_environment_is_prepared_before_pytorch_reads_it(tmp_path):
    read = "import os\nraise SystemExit(os.environ['GOMP_SPINCOUNT'])\n"
    (tmp_path / "torch.py").write_text(read)
    chosen = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, BENCHMARK, "--help"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.stderr.strip().isdigit(), process.stderr
