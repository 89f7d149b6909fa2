"""The benchmark."""

import re
import runpy
import sys

import pytest
import torch
from conftest import ROOT

from codebase.compute import processor


@pytest.mark.slow
def test_the_benchmark_prints_its_table_also_without_jax(monkeypatch, capsys):
    # PyTorch has read the environment already, and other tests must not notice a change.
    monkeypatch.setattr(processor, "prepare_environment", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # The benchmark changes it.
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ["--against", "jax", "--dataset", "synthetic", "--steps", "3", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["training_speed.py", *options])
    runpy.run_path(str(ROOT / "benchmarks" / "training_speed.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert "pip install jax" in output and " 1 threads, synthetic, 7 rounds of 3 steps" in output
    medians = {}
    for line in output.splitlines():
        if cells := re.fullmatch(r"\| (.+) \| (.+) \| (.+) to (.+) \| (.+) \| (.+) \|", line):
            median, least, most, rate, ratio = map(float, cells.groups()[1:])
            assert 0 < least <= median <= most
            assert rate == pytest.approx(1000 / median, rel=0.05, abs=1)
            medians[cells[1]] = median, ratio
    names = ["conventional loop", "this project", "its recipe", "matrix products alone"]
    assert [*medians] == names and medians[names[0]][1] == 1
    seconds = re.search(r"(\d+) s by 20,000 steps .* (\d+) s by 4,000 ", output).groups()
    for name, steps, shown in ((names[0], 20_000, seconds[0]), (names[2], 4_000, seconds[1])):
        assert int(shown) == pytest.approx(medians[name][0] * steps / 1000, abs=1 + steps / 1e5)
