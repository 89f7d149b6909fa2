"""The number of threads that follows the load."""

import os
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn

from codebase import evaluate
from codebase.compute import threads
from codebase.models.vae import VAE

IMAGES = torch.zeros(3)


class Counting:
    """A training that adds a result to its parameter, and takes a second for each thread."""

    seconds = 0

    def __init__(self, result):
        self.device, self.processes = torch.device("cpu"), SimpleNamespace(size=1)
        self.model, self.result = nn.Linear(1, 1, bias=False), result

    def take_step(self, images):
        self.seconds += torch.get_num_threads()
        with torch.no_grad():
            self.model.weight += self.result(torch.get_num_threads())
        return images


@pytest.fixture
def number(monkeypatch):
    """The number of threads, which has no effect."""
    chosen = [4]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: chosen[-1])
    return torch.get_num_threads


def test_the_fastest_number_of_threads_is_found_again_when_the_load_changes(number):
    trials = threads._trials([4, 2, 1])
    next(trials)

    def run(seconds):
        """Take steps that last this long with each number of threads; give the numbers."""
        return [trials.send(seconds[number()]) or number() for _ in range(3_000)]

    assert run({1: 0.01, 2: 0.02, 4: 0.04})[-1] == 1
    quiet = run({1: 0.04, 2: 0.02, 4: 0.01})
    assert quiet[-1] == 4
    assert quiet[1_000:].count(4) > 0.9 * 2_000  # trials are rare
    assert run({1: 0.02, 2: 0.01, 4: 0.03})[-1] == 2


@pytest.mark.parametrize(
    ("result", "used"),
    [(lambda n: 1.0, {1, 2, 4}), (lambda n: 1 + 1e-6 * (n < 2), {2, 4}), (lambda n: n, {4})],
)
def test_only_numbers_with_the_same_result_are_used(number, monkeypatch, result, used):
    monkeypatch.setattr(threads, "SECONDS_BETWEEN_TRIALS", 0)
    training, seen = Counting(result), set()
    clock = SimpleNamespace(perf_counter=lambda: training.seconds)
    monkeypatch.setattr(threads, "time", clock)
    before = training.model.weight.item()
    with threads.training_step(training, IMAGES) as take_step:
        assert training.model.weight.item() == before  # copies took the first steps
        for _ in range(500):
            take_step(IMAGES)
            seen.add(number())
    assert seen == used
    assert number() == 4


@pytest.mark.parametrize("fixed", ["user", "gpu", "processes", "cannot be copied"])
def test_the_number_stays_where_it_is_not_ours(number, monkeypatch, fixed):
    training = Counting(lambda n: 1.0)
    if fixed == "user":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    elif fixed == "gpu":
        training.device = torch.device("cuda")
    elif fixed == "processes":
        training.processes.size = 2
    else:
        training.model.last = training.model.weight * 2  # no leaf of the graph
    with threads.training_step(training, IMAGES) as take_step:
        assert take_step == training.take_step


@pytest.mark.parametrize("is_same", [True, False])
def test_a_long_measurement_follows_the_load_if_it_stays_the_same(number, monkeypatch, is_same):
    model, x, seen = VAE(z_dim=2), torch.bernoulli(torch.full((21, 784), 0.3)), []

    def bound(x, iw):
        seen.append(number())
        return (x.mean() if is_same else x.mean() * number(),)

    model.negative_iwae_bound = bound
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    fixed = evaluate.negative_iwae(model, x, 1_000)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "SECONDS_BETWEEN_TRIALS", 0)
    assert evaluate.negative_iwae(model, x, 1_000) == fixed
    assert {*seen[-len(x) :]} == ({4, 2} if is_same else {4})
    assert number() == 4


@pytest.mark.slow
def test_a_step_has_the_same_result_with_one_thread_and_with_two_and_numpy_does_not_warn(start):
    """PyTorch reads the variable for MKL when it is imported, so this needs a process.

    NumPy 1.26 warns at its first look for denormal numbers if there are none.
    """
    program = """
import warnings
from codebase.compute import processor, threads
processor.prepare_environment()
import torch
from codebase.datasets import synthetic
from codebase.settings import Settings
from codebase.train import Training

pixels, _ = synthetic.make([10] * 10, torch.Generator().manual_seed(0))
training = Training(Settings(), torch.device("cpu"))
print(threads._equivalent(lambda: threads._result_of_step(training, pixels), 2))
warnings.simplefilter("error")
with processor.prepared_processor():
    import numpy
    numpy.finfo("float32").smallest_subnormal, numpy.finfo("float64").smallest_subnormal
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    process = start("-c", program, env=environment | {"PYTHONPATH": str(ROOT)})
    numbers, errors = process.communicate()
    assert process.returncode == 0, errors
    assert numbers == "[2, 1]\n" or not torch.backends.mkl.is_available()
