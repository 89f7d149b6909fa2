"""Randomness: apart by purpose, and local."""

import itertools

import pytest
import torch
from codebase.seeds import (
    NOISE,
    ORDER,
    PIXELS,
    WEIGHTS,
    get_global_state,
    seed_for,
    seeded,
    set_global_state,
)

CPU = torch.device("cpu")
PURPOSES = (WEIGHTS, ORDER, PIXELS, NOISE)


def test_every_run_purpose_and_epoch_has_its_own_seed():
    runs = (0, 1, 2, 3, 10**9)
    seeds = {seed_for(*which) for which in itertools.product(runs, PURPOSES, range(50))}
    assert len(seeds) == 5 * 4 * 50


def test_the_seeds_of_the_published_numbers_stay():
    assert [seed_for(3, purpose, 5) for purpose in PURPOSES] == [
        2748448838318224038,
        1636926441038586439,
        16915429354210642500,
        12360291516424517044,
    ]


def test_seeds_are_of_64_bits_that_look_random():
    seeds = [seed_for(run, purpose) for run in range(100) for purpose in PURPOSES]
    assert all(type(seed) is int and 0 <= seed < 2**64 for seed in seeds)
    for bit in range(64):
        ones = sum(seed >> bit & 1 for seed in seeds)
        assert abs(ones - 200) < 5 * 10  # in standard deviations of a fair coin


def test_a_seed_is_the_same_every_time_and_the_first_epochs_without_one():
    assert (
        seed_for(3, ORDER) == seed_for(3, ORDER) == seed_for(3, ORDER, 0) != seed_for(3, ORDER, 1)
    )


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
    with seeded(seed_for(0, NOISE), CPU):  # of more than 63 bits, as the half of them
        assert torch.isfinite(torch.randn(5)).all()


def test_the_global_state_is_restored_after_an_error():
    state = torch.manual_seed(7).get_state()
    with pytest.raises(ZeroDivisionError), seeded(3, CPU):
        torch.randn(5)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)


def test_a_global_state_that_was_kept_gives_the_same_draws_again():
    state = get_global_state(CPU)
    assert (state.dtype, state.device) == (torch.uint8, CPU)
    first = torch.randn(5)
    torch.manual_seed(99)
    set_global_state(state, CPU)
    assert torch.equal(torch.randn(5), first)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_the_state_of_a_gpu_is_not_that_of_the_cpu():
    gpu = torch.device("cuda")
    with pytest.raises((RuntimeError, AssertionError)):
        get_global_state(gpu)
    with pytest.raises((RuntimeError, AssertionError)), seeded(3, gpu):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_randomness_on_a_gpu_is_seeded_and_kept_likewise():
    gpu = torch.device("cuda")
    state = get_global_state(gpu)
    assert (state.dtype, state.device) == (torch.uint8, CPU)
    first = torch.randn(5, device=gpu)
    set_global_state(state, gpu)
    on_cpu = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(3, gpu):
            draws.append(torch.randn(5, device=gpu))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), on_cpu)
    assert torch.equal(torch.randn(5, device=gpu), first)
