"""The benchmark."""

import re
import runpy
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

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # The benchmark changes it.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield run
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_benchmark_prints_its_table_also_without_jax(training_speed, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ("--against", "jax", "--dataset", "synthetic", "--steps", 3, "--threads", 1)
    status, output, errors = training_speed(*options)
    assert status == 0, errors
    assert "pip install jax" in output and "| JAX" not in output
    assert re.search(r" 1 threads, synthetic, 7 rounds of 3 steps", output)
    medians = {}
    for line in output.splitlines():
        if cells := re.fullmatch(r"\| (.+) \| (.+) \| (.+) to (.+) \| (.+) \| (.+) \|", line):
            median, least, most, rate, ratio = map(float, cells.groups()[1:])
            assert 0 < least <= median <= most
            assert rate == pytest.approx(1000 / median, rel=0.05, abs=1)
            medians[cells[1]] = median, ratio
    names = ["conventional loop", "this project", "its recipe", "matrix products alone"]
    assert [*medians] == names
    assert medians[names[0]][1] == 1
    seconds = re.search(r"(\d+) s by 20,000 steps .* (\d+) s by 4,000 ", output).groups()
    for name, steps, shown in ((names[0], 20_000, seconds[0]), (names[2], 4_000, seconds[1])):
        assert int(shown) == pytest.approx(medians[name][0] * steps / 1000, abs=1 + steps / 1e5)
