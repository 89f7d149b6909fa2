"""Random seeds: different for each purpose, and without effects on the global state."""

from contextlib import nullcontext

import pytest
import torch

from codebase.system.seeds import ORDER, STEP, WEIGHTS, preserved, seed_all, seed_for, seeded

CPU = torch.device("cpu")
PURPOSES = (WEIGHTS, ORDER, STEP)


def test_seeds_of_a_run_differ_and_the_first_seeds_of_runs_and_purposes_are_unrelated():
    """PyTorch's CPU generator forgets all but 32 bits of a seed."""
    for purpose in PURPOSES:
        numbers = [*range(5_000), 10**9, 2**32 - 1]
        seeds = {seed_for(10**9, purpose, number) % 2**32 for number in numbers}
        assert len(seeds) == len(numbers)
    starts = [seed_for(run, purpose) for run in range(100) for purpose in PURPOSES]
    assert len({*starts}) == 300
    for bit in range(32):
        ones = sum(start >> bit & 1 for start in starts)
        assert abs(ones - 150) < 5 * 8.7  # in standard deviations of a fair coin


def test_the_seeds_of_the_published_results_do_not_change():
    seeds = [seed_for(3, purpose, number) for purpose in PURPOSES for number in (0, 5)]
    assert seeds == [1576890651, 1576890656, 457190280, 457190285, 960329833, 960329838]


def test_the_global_state_is_restored_after_a_block_that_may_be_seeded():
    torch.manual_seed(3)
    expected = torch.randn(5)
    state = torch.manual_seed(7).get_state()
    of_state = torch.randn(5)
    torch.set_rng_state(state)
    for block, samples in [(seeded(3, CPU), expected), (preserved(CPU), of_state)]:
        with pytest.raises(ZeroDivisionError), block:
            assert torch.equal(torch.randn(5), samples)
            raise ZeroDivisionError
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("kind", "seeded"), [("cpu", []), ("cuda", ["gpu"]), ("mps", ["all"])])
def test_seed_all_seeds_the_device_and_the_cpu(kind, seeded, monkeypatch):
    """PyTorch's functions for the devices are replaced, so the devices need not exist."""
    expected = torch.manual_seed(7).get_state()
    torch.randn(3)  # a generator may keep the second of two normal numbers
    called = []
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: called.append(("gpu", seed)))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: called.append(("all", seed)))
    seed_all(7, torch.device(kind))
    assert called == [(name, 7) for name in seeded]
    assert kind == "mps" or torch.equal(torch.get_rng_state(), expected)
