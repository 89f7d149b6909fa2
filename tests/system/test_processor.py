"""The processor's modes and the device."""

import os

import pytest
import torch
from conftest import ROOT

from codebase.system.errors import UserError
from codebase.system.processor import choose_device, prepared_processor


@pytest.fixture
def gpus(monkeypatch):
    """Have PyTorch say how many GPUs there are."""

    def say(number):
        found = torch.device("cuda") if number else None
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: number)

    return say


def refusal(name):
    """The sentence that answers the name of a device, which is a wrong argument."""
    with pytest.raises(UserError) as caught:
        choose_device(name)
    assert caught.value.status == 2
    return str(caught.value)


def test_without_a_gpu_there_is_only_the_cpu(gpus):
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    sentence = "argument --device: this machine has no device 'cuda', only cpu"
    assert refusal("cuda") == sentence


def test_a_gpu_is_chosen_where_there_is_one(gpus):
    gpus(2)
    for name, device in [
        ("auto", "cuda"),
        ("cuda", "cuda"),
        ("cuda:0", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ("cpu", "cpu"),
    ]:
        assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize("name", ["gpu", "cuda:2", "cpu:1", "", "Auto"])
def test_an_unknown_device_is_answered_with_the_known_ones(gpus, name):
    gpus(2)
    known = "cuda, cuda:0, cuda:1, cpu"
    assert refusal(name) == f"argument --device: this machine has no device {name!r}, only {known}"


@pytest.fixture(autouse=True)
def threads():
    """How many threads PyTorch has; they are put back afterwards, and so are denormal numbers."""
    threads = torch.get_num_threads()
    yield threads
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture
def cores(monkeypatch):
    """Have the system say which cores this process may use."""

    def say(number):
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(number)), raising=False)

    return say


def threads_inside():
    """PyTorch's threads in a processor that is prepared."""
    with prepared_processor():
        return torch.get_num_threads()


def test_denormal_numbers_are_flushed_for_as_long_as_the_program_computes():
    denormal = torch.tensor([1e-39])
    with prepared_processor():
        assert denormal.mul(1).item() == 0
    assert denormal.mul(1).item() > 0


@pytest.mark.slow
def test_a_program_that_looks_for_denormal_numbers_later_is_not_warned(start):
    """NumPy 1.26 warns where it finds none, the first time that it looks."""
    program = """
from codebase.system.processor import prepared_processor
with prepared_processor():
    import numpy
    numpy.finfo("float32").smallest_subnormal, numpy.finfo("float64").smallest_subnormal
"""
    process = start("-W", "error", "-c", program, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.communicate() == ("", "")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_threads_are_as_many_as_the_user_has_chosen(cores, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # which PyTorch has read when it was imported
    cores(1)
    torch.set_num_threads(number)
    assert threads_inside() == number


@pytest.mark.parametrize(("chosen", "usable", "inside"), [(4, 2, 2), (2, 4, 2), (3, 3, 3)])
def test_threads_are_no_more_than_the_cores_that_may_be_used(
    threads, cores, monkeypatch, chosen, usable, inside
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores(usable)
    torch.set_num_threads(chosen)
    assert threads_inside() == inside
    assert torch.get_num_threads() == chosen


@pytest.fixture
def torchrun(monkeypatch):
    """The environment of the second process that torchrun has started on the second machine."""
    told = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (told | {"RANK": "3", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("chosen", "usable", "inside"), [("1", 6, 3), ("1", 1, 1), ("2", 6, 2), ("", 6, 3)]
)
def test_processes_of_torchrun_share_the_cores(
    cores, torchrun, monkeypatch, chosen, usable, inside
):
    """Unless the user has chosen, in whose place torchrun says 1."""
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    cores(usable)
    assert threads_inside() == inside


def test_each_process_of_torchrun_has_a_gpu_of_its_own(gpus, torchrun):
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")
    gpus(1)
    assert refusal("auto").endswith("no device 'cuda:1', only cuda, cuda:0, cpu")
