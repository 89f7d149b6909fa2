"""The processor and the device: usable cores, environment, threads, and the choice of a device."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SCRIPT

from codebase.compute.processor import (
    check_defaults,
    choose_device,
    prepare_environment,
    prepared_processor,
    torchrun_ranks,
    usable_cores,
)
from codebase.system.errors import UserError


@pytest.fixture
def cores(monkeypatch):
    """Sets the number of cores in this process's affinity, on a machine of 64."""

    def cores(number):
        monkeypatch.setattr("os.cpu_count", lambda: 64)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(number)), raising=False)

    return cores


# Usable cores.


@pytest.mark.parametrize(
    ("group", "place", "quota", "number"),
    [
        ("/jobs/mine", "jobs/mine", "200000 100000", 2),
        ("/jobs/mine", "jobs/mine", "250000 100000", 2),
        ("/jobs/mine", "jobs/mine", "50000 100000", 1),
        ("/jobs/mine", "jobs/mine", "6400000 100000", 16),
        ("/jobs/mine", "jobs/mine", "max 100000", 16),
        ("/jobs/mine", "jobs/yours", "100000 100000", 16),
        ("/", ".", "200000 100000", 2),  # a container's own group
    ],
)
def test_the_quota_of_the_cgroup_limits_the_cores(cores, tmp_path, group, place, quota, number):
    cores(16)
    for name, content in (
        ("proc/self/cgroup", f"0::{group}\n"),
        (f"sys/fs/cgroup/{place}/cpu.max", f"{quota}\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    assert usable_cores(tmp_path) == number


def test_without_cgroups_the_affinity_limits_the_cores(cores, tmp_path):
    cores(16)
    assert usable_cores(tmp_path) == 16


def test_without_affinity_all_cores_are_usable(cores, tmp_path, monkeypatch):
    cores(16)
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores(tmp_path) == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_a_real_affinity_limits_the_cores():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


# The environment.

CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ATEN_CPU_CAPABILITY")
AMD, INTEL = "vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"
SPINS = {"GOMP_SPINCOUNT": "10000"}
# Runs the script until it imports PyTorch, and prints a variable that PyTorch would read.
PROGRAM = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def prepare(monkeypatch):
    """Returns the variables that are prepared for a processor and the user's own choices."""

    def prepare(processor, **choices):
        def read_text(path):
            if processor is None:
                raise FileNotFoundError(path)
            return processor

        monkeypatch.setattr(Path, "read_text", read_text)
        for name in CHOSEN:
            monkeypatch.delenv(name, raising=False)
        for name, value in choices.items():
            monkeypatch.setenv(name, value)
        prepare_environment()
        chosen = {name: os.environ[name] for name in CHOSEN if name in os.environ}
        for name in CHOSEN:  # so that monkeypatch restores them
            monkeypatch.delenv(name, raising=False)
        return chosen

    return prepare


@pytest.mark.parametrize(
    ("processor", "prepared"),
    [
        (f"{AMD}\nflags : avx2 avx512f", SPINS | {"ATEN_CPU_CAPABILITY": "avx2"}),
        (f"{AMD}\nflags : avx2", SPINS),
        (f"{INTEL}\nflags : avx2 avx512f", SPINS),
        (None, SPINS),
    ],
)
def test_the_environment_depends_on_the_processor(prepare, processor, prepared):
    assert prepare(processor) == prepared


@pytest.mark.parametrize("choice", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_the_users_choices_stay(prepare, choice):
    assert prepare(INTEL, **choice) == choice
    kernels = {"ATEN_CPU_CAPABILITY": "default"}
    assert prepare(f"{AMD} avx512f", **choice, **kernels) == choice | kernels


def test_the_program_prepares_the_environment_before_it_imports_pytorch(start):
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    process = start("-c", PROGRAM, SCRIPT, env=environment)
    assert process.communicate() == ("10000\n", "")


# Threads.


@pytest.fixture(autouse=True)
def threads():
    """PyTorch's number of threads, which is restored after the test."""
    threads = torch.get_num_threads()
    yield threads
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture
def torchrun(monkeypatch):
    """The environment of the second process that torchrun starts on the second machine."""
    names = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (names | {"RANK": "3", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)


def threads_inside():
    """PyTorch's number of threads in a prepared processor."""
    with prepared_processor():
        return torch.get_num_threads()


def test_denormal_numbers_are_flushed_inside_the_block_only():
    denormal = torch.tensor([1e-39])
    with prepared_processor():
        assert denormal.mul(1).item() == 0
    assert denormal.mul(1).item() > 0


@pytest.mark.slow
def test_numpy_does_not_warn_about_flushed_numbers(start):
    """NumPy 1.26 warns at its first look for denormal numbers if there are none."""
    program = """
from codebase.compute.processor import prepared_processor
with prepared_processor():
    import numpy
    numpy.finfo("float32").smallest_subnormal, numpy.finfo("float64").smallest_subnormal
"""
    process = start("-W", "error", "-c", program, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.communicate() == ("", "")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_user_chooses_the_number_of_threads(cores, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # PyTorch has read it when it was imported
    cores(1)
    torch.set_num_threads(number)
    assert threads_inside() == number


@pytest.mark.parametrize(("chosen", "usable", "inside"), [(4, 2, 2), (2, 4, 2), (3, 3, 3)])
def test_there_are_at_most_as_many_threads_as_usable_cores(
    cores, monkeypatch, chosen, usable, inside
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores(usable)
    torch.set_num_threads(chosen)
    assert threads_inside() == inside
    assert torch.get_num_threads() == chosen


@pytest.mark.parametrize(
    ("chosen", "usable", "inside"), [("1", 6, 3), ("1", 1, 1), ("2", 6, 2), (None, 6, 3)]
)
def test_processes_of_torchrun_share_the_cores(
    cores, torchrun, monkeypatch, chosen, usable, inside
):
    """The user's choice counts, unless it is torchrun's 1."""
    torch.set_num_threads(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    cores(usable)
    assert threads_inside() == inside


# The device.


def test_only_torchrun_sets_ranks(torchrun, monkeypatch):
    assert torchrun_ranks() == (3, 4, 1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # another launcher sets the same names
    assert torchrun_ranks() == (0, 1, 0)


@pytest.fixture
def gpus(monkeypatch):
    """Sets the number of GPUs that PyTorch finds, and the error of each operation on them."""
    ones = torch.ones

    def gpus(number, error=""):
        def on_gpu(*sizes, device):
            if error:
                raise RuntimeError(error)
            return ones(*sizes)

        monkeypatch.setattr(torch, "ones", on_gpu)
        found = torch.device("cuda") if number else None
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: number)

    return gpus


def refusal(name):
    """The sentence that refuses the name of a device, as a wrong argument."""
    with pytest.raises(UserError) as caught:
        choose_device(name)
    assert caught.value.status == 2
    return str(caught.value)


def test_without_a_gpu_there_is_only_the_cpu(gpus):
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    assert refusal("cuda").endswith("no device 'cuda', only cpu")


def test_auto_is_a_gpu_and_each_device_has_its_name(gpus):
    gpus(2)
    assert choose_device("auto") == torch.device("cuda")
    for name in ("cuda", "cuda:0", "cuda:1", "cpu"):
        assert choose_device(name) == torch.device(name)


# PyTorch without code for a GPU, and a GPU whose memory others use.
@pytest.mark.parametrize("error", ["CUDA error: no kernel image\nCompile with X", "out of memory"])
def test_a_gpu_that_cannot_be_used_is_one_sentence_and_auto_takes_the_cpu(gpus, capsys, error):
    gpus(1, error)
    reason = error.splitlines()[0]
    assert choose_device("auto") == torch.device("cpu")
    warning = capsys.readouterr().err
    assert warning.startswith("Warning: ") and reason in warning and warning.count("\n") == 1
    with pytest.raises(UserError, match=reason) as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value) and "--device cpu" in str(caught.value)
    # A process that starts others leaves the memory of the GPU to them.
    assert choose_device("auto", probe=False) == torch.device("cuda")


def test_the_processes_of_torchrun_do_not_take_devices_of_two_kinds(gpus, torchrun):
    gpus(2, "out of memory")
    with pytest.raises(UserError, match="out of memory"):
        choose_device("auto")


@pytest.mark.parametrize(
    ("change", "usual"),
    [
        (partial(torch.set_default_dtype, torch.float64), torch.float32),
        (partial(torch.set_default_device, "meta"), torch.device("cpu")),
    ],
)
def test_a_changed_default_of_pytorch_is_refused(change, usual):
    check_defaults()
    try:
        change()
        with pytest.raises(UserError, match="delete the line"):
            check_defaults()
    finally:
        change.func(usual)


@pytest.mark.parametrize("name", ["gpu", "cuda:2", "cpu:1", "", "Auto"])
def test_an_unknown_device_is_refused_with_the_known_ones(gpus, name):
    gpus(2)
    assert refusal(name).endswith(f"no device {name!r}, only cuda, cuda:0, cuda:1, cpu")


def test_each_process_of_torchrun_has_its_own_gpu(gpus, torchrun):
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")
    gpus(1)
    assert refusal("auto").endswith("no device 'cuda:1', only cuda, cuda:0, cpu")
