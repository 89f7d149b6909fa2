"""Randomness: apart by purpose, and local."""

import torch

from codebase.seeds import NOISE, ORDER, PIXELS, WEIGHTS, seed_for, seeded


def test_every_run_purpose_and_epoch_has_its_own_seed():
    seeds = {
        seed_for(run, purpose, epoch)
        for run in (0, 1, 2, 10**9)
        for purpose in (WEIGHTS, ORDER, PIXELS, NOISE)
        for epoch in range(50)
    }
    assert len(seeds) == 4 * 4 * 50


def test_seeded_draws_repeat_and_leave_the_global_state():
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(3, torch.device("cpu")):
            draws.append(torch.randn(5))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)
