"""What this program relies on in PyTorch, and would notice late if it changed."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn


def test_bernoulli_gives_the_bits_of_uniform_numbers_below_p():
    p = torch.arange(256).repeat(100) / 255
    bits = torch.bernoulli(p, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(p.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bits, (uniform < p).float())


@pytest.mark.parametrize("threads", [1, 3])
def test_binarized_images_do_not_depend_on_the_number_of_threads(threads):
    p = torch.linspace(0, 1, 100 * 784)
    before = torch.get_num_threads()
    expected = torch.bernoulli(p, generator=torch.Generator().manual_seed(0))
    try:
        torch.set_num_threads(threads)
        found = torch.bernoulli(p, generator=torch.Generator().manual_seed(0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


def test_adam_matches_its_state_by_position_and_not_by_shape():
    optimizers = [torch.optim.Adam([nn.Parameter(torch.ones(n))]) for n in (2, 3)]
    for optimizer in optimizers:
        parameter = optimizer.param_groups[0]["params"][0]
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    optimizers[0].load_state_dict(optimizers[1].state_dict())
    (state,) = optimizers[0].state.values()
    assert len(state["exp_avg"]) == 3


@pytest.mark.parametrize("in_place, expected", [(False, 2e-9), (True, 0.0)])
def test_the_gradient_of_elu_in_place_vanishes_where_its_output_is_minus_one(in_place, expected):
    x = torch.tensor([-20.0], requires_grad=True)
    nn.ELU(inplace=in_place)(1 * x).sum().backward()
    assert x.grad.item() == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_binarized_images_do_not_depend_on_the_instruction_set():
    code = "import sys, torch; p = torch.arange(256).repeat(300) / 255; torch.manual_seed(0)\n"
    code += "sys.stdout.write(str(torch.bernoulli(p).long().tolist()))"
    bits = set()
    for kind in ("default", "avx2"):
        environment = os.environ | {"ATEN_CPU_CAPABILITY": kind}
        command = [sys.executable, "-c", code]
        bits.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(bits) == 1
