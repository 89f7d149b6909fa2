"""The processor's modes and the device."""

import pytest
import torch

from codebase.system.errors import UserError
from codebase.system.processor import choose_device, prepare_processor


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


@pytest.fixture
def processor():
    """The processor's modes, put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_denormal_numbers_are_flushed(processor):
    denormal = torch.tensor([1e-39])
    assert denormal.mul(1).item() > 0
    prepare_processor()
    assert denormal.mul(1).item() == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_as_many_as_pytorch_has_chosen(processor, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of a user, without torchrun
    torch.set_num_threads(threads)
    prepare_processor()
    assert torch.get_num_threads() == threads


@pytest.fixture
def torchrun(monkeypatch):
    """The environment of the second process that torchrun has started on the second machine."""
    told = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (told | {"RANK": "3", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("chosen", "threads"), [("1", 3), ("2", 2)])
def test_processes_of_torchrun_share_the_cores(processor, torchrun, monkeypatch, chosen, threads):
    """Unless the user has chosen, in whose place torchrun says 1."""
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    prepare_processor()
    assert torch.get_num_threads() == threads


def test_a_process_of_torchrun_has_a_thread_even_where_there_are_fewer_cores(
    processor, torchrun, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    prepare_processor()
    assert torch.get_num_threads() == 1


def test_each_process_of_torchrun_has_a_gpu_of_its_own(gpus, torchrun):
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")
    gpus(1)
    assert refusal("auto").endswith("no device 'cuda:1', only cuda, cuda:0, cpu")
