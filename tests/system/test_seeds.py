"""Randomness: apart by purpose, and local."""

import itertools
from contextlib import nullcontext

import pytest
import torch

from codebase.system.seeds import ORDER, STEP, WEIGHTS, seed_all, seed_for, seeded

CPU = torch.device("cpu")
PURPOSES = (WEIGHTS, ORDER, STEP)


def test_every_run_purpose_number_and_process_has_its_own_seed():
    runs, numbers = (0, 1, 2, 3, 10**9), (*range(50), 10**9)
    which = list(itertools.product(runs, PURPOSES, numbers, range(4)))
    assert len({seed_for(*each) for each in which}) == len(which) == 5 * 3 * 51 * 4


def test_the_seeds_of_the_published_numbers_stay():
    seeds = [seed_for(3, purpose, 5, process) for purpose in PURPOSES for process in (0, 1)]
    assert seeds == [
        2748448838318224038,
        17309245584008313578,
        1636926441038586439,
        5886266291053391497,
        16915429354210642500,
        1783444357542102758,
    ]


def test_seeds_are_of_64_bits_that_look_random():
    seeds = [seed_for(run, purpose) for run in range(100) for purpose in PURPOSES]
    assert all(type(seed) is int and 0 <= seed < 2**64 for seed in seeds)
    for bit in range(64):
        ones = sum(seed >> bit & 1 for seed in seeds)
        assert abs(ones - 150) < 5 * 8.7  # in standard deviations of a fair coin


def test_a_seed_is_the_same_every_time_and_that_of_the_first_number_and_process_without_them():
    assert seed_for(3, ORDER) == seed_for(3, ORDER) == seed_for(3, ORDER, 0, 0)
    assert seed_for(3, STEP, 7) == seed_for(3, STEP, 7, 0) != seed_for(3, STEP, 7, 1)


@pytest.mark.parametrize("seed", [0, 3, seed_for(0, STEP), 2**64 - 1])
def test_seeding_is_that_of_pytorch(seed):
    torch.manual_seed(seed)
    expected = torch.randn(5), torch.rand(5), torch.randperm(5)
    torch.manual_seed(99)
    torch.randn(3)  # of a pair of normal numbers, one may be kept
    seed_all(seed, CPU)
    drawn = torch.randn(5), torch.rand(5), torch.randperm(5)
    assert all(map(torch.equal, drawn, expected))


def test_seeded_draws_are_those_of_the_seed_and_leave_the_global_state():
    torch.manual_seed(3)
    expected = torch.randn(5)
    state = torch.manual_seed(7).get_state()
    for _ in range(2):
        with seeded(3, CPU):
            assert torch.equal(torch.randn(5), expected)
        assert torch.equal(torch.get_rng_state(), state)
    with seeded(4, CPU):
        assert not torch.equal(torch.randn(5), expected)


def test_the_global_state_is_restored_after_an_error():
    state = torch.manual_seed(7).get_state()
    with pytest.raises(ZeroDivisionError), seeded(3, CPU):
        torch.randn(5)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_the_randomness_of_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises((RuntimeError, AssertionError)), seeded(3, torch.device("cuda")):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_randomness_on_a_gpu_is_seeded_and_kept_likewise():
    gpu = torch.device("cuda")
    torch.manual_seed(7)
    expected = torch.randn(5, device=gpu)
    torch.manual_seed(7)
    on_cpu = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(3, gpu):
            draws.append(torch.randn(5, device=gpu))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), on_cpu)
    assert torch.equal(torch.randn(5, device=gpu), expected)
    seed_all(7, gpu)
    assert torch.equal(torch.randn(5, device=gpu), expected)
    assert torch.equal(torch.randn(3), torch.randn(3, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize(("kind", "seeded"), [("cpu", []), ("cuda", ["gpu"]), ("mps", ["all"])])
def test_the_device_is_seeded_beside_the_cpu(kind, seeded, monkeypatch):
    """On a machine without that device, too: what PyTorch offers for it is watched."""
    called = []
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: called.append(("gpu", seed)))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: called.append(("all", seed)))
    seed_all(7, torch.device("cpu"))
    expected = torch.rand(3)
    torch.rand(1)
    seed_all(7, torch.device(kind))
    assert called == [(name, 7) for name in seeded]
    assert kind == "mps" or torch.equal(torch.rand(3), expected)
