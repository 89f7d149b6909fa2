"""The processor and the device: usable cores, environment, threads, and the choice of a device."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT, SCRIPT

from codebase.compute.processor import (
    ONE_OF_SEVERAL,
    check_defaults,
    choose_device,
    prepare_environment,
    prepared_processor,
    torchrun_ranks,
    usable_cores,
)
from codebase.system.errors import UserError

# Cores and the environment.


@pytest.fixture
def cores(monkeypatch):
    """Sets the number of cores in this process's affinity, on a machine of 64."""

    def cores(number):
        monkeypatch.setattr("os.cpu_count", lambda: 64)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(number)), raising=False)

    return cores


# The second group is a container's own.
@pytest.mark.parametrize(("group", "place"), [("/jobs/mine", "jobs/mine"), ("/", ".")])
def test_the_quota_of_the_cgroup_limits_the_cores(cores, tmp_path, group, place):
    cores(16)
    assert usable_cores(tmp_path) == 16
    limit, own = tmp_path / "sys/fs/cgroup" / place / "cpu.max", tmp_path / "proc/self/cgroup"
    for path in (limit, own):
        path.parent.mkdir(parents=True)
    own.write_text(f"0::{group}\n")
    for quota, number in (("250000", 2), ("50000", 1), ("2000000", 16), ("max", 16)):
        limit.write_text(f"{quota} 100000\n")
        assert usable_cores(tmp_path) == number


def test_without_affinity_all_cores_are_usable(cores, tmp_path, monkeypatch):
    cores(16)
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores(tmp_path) == 64


CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_CBWR", "ATEN_CPU_CAPABILITY")
AMD, INTEL = "vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"
USUAL = {"GOMP_SPINCOUNT": "10000", "MKL_CBWR": "AUTO,STRICT"}


@pytest.mark.parametrize(
    ("processor", "choices", "prepared"),
    [
        (f"{AMD}\nflags : avx2 avx512f", {}, USUAL | {"ATEN_CPU_CAPABILITY": "avx2"}),
        (f"{AMD}\nflags : avx2", {}, USUAL),
        (f"{INTEL}\nflags : avx2 avx512f", {}, USUAL),
        (None, {"OMP_WAIT_POLICY": "active"}, {"MKL_CBWR": "AUTO,STRICT"}),
        (INTEL, {"GOMP_SPINCOUNT": "7", "MKL_CBWR": "AVX2"}, {}),
        (f"{AMD} avx512f", {"ATEN_CPU_CAPABILITY": "default"}, USUAL),
    ],
)
def test_the_environment_depends_on_the_processor_and_keeps_the_users_choices(
    monkeypatch, processor, choices, prepared
):
    read = Mock(return_value=processor, side_effect=None if processor else FileNotFoundError)
    monkeypatch.setattr(Path, "read_text", read)
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    monkeypatch.setattr(os, "environ", kept | choices)
    prepare_environment()
    assert os.environ == kept | choices | prepared


@pytest.mark.parametrize("program", [SCRIPT, ROOT / "benchmarks" / "training_speed.py"])
def test_a_program_prepares_the_environment_before_it_imports_pytorch(start, tmp_path, program):
    content = "import os; print(os.environ['GOMP_SPINCOUNT'], flush=True); os._exit(0)"
    (tmp_path / "torch.py").write_text(content)
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    process = start(program, env=environment | {"PYTHONPATH": str(tmp_path)})
    assert process.communicate() == ("10000\n", "")


# Threads. compute/test_threads.py looks for NumPy's warning about flushed numbers.


@pytest.fixture(autouse=True)
def threads():
    """PyTorch's number of threads, which is restored after the test."""
    threads = torch.get_num_threads()
    yield threads
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_denormal_numbers_are_flushed_inside_the_block_only():
    denormal = torch.tensor([1e-39])
    with prepared_processor():
        assert denormal.mul(1).item() == 0
    assert denormal.mul(1).item() > 0


@pytest.mark.parametrize(
    ("processes", "before", "chosen", "usable", "inside"),
    [
        (1, 2, {"OMP_NUM_THREADS": "7"}, 1, 2),  # PyTorch has read it when it was imported
        (1, 4, {}, 2, 2),  # no more than the usable cores
        (1, 2, {}, 4, 2),
        (1, 4, {ONE_OF_SEVERAL: "3"}, 8, 3),
        (2, 2, {"OMP_NUM_THREADS": "1"}, 6, 3),  # 1 is torchrun's own number
        (2, 2, {"OMP_NUM_THREADS": "1"}, 1, 1),
        (2, 2, {"OMP_NUM_THREADS": "2"}, 6, 2),
        (2, 2, {}, 6, 3),
    ],
)
def test_the_number_of_threads_is_the_users_or_a_share_of_the_usable_cores(
    cores, torchrun, monkeypatch, processes, before, chosen, usable, inside
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    if processes > 1:
        torchrun(3, 4, 2)
    cores(usable)
    torch.set_num_threads(before)
    with prepared_processor():
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == before


# The device.


def test_only_torchrun_sets_ranks(torchrun, monkeypatch):
    torchrun(3, 4, 2)
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


@pytest.mark.parametrize(
    ("name", "without", "alone", "by_torchrun"),
    [
        ("auto", "cpu", "cuda", "cuda:1"),  # each process of torchrun has its own GPU
        ("cuda", None, "cuda", "cuda:1"),
        ("cuda:0", None, "cuda:0", "cuda:0"),
        ("cuda:1", None, "cuda:1", "cuda:1"),
        ("cpu", "cpu", "cpu", "cpu"),
        *((name, None, None, None) for name in ("gpu", "cuda:2", "cpu:1", "", "Auto")),
    ],
)
def test_each_device_has_its_name_and_others_are_refused(
    gpus, torchrun, name, without, alone, by_torchrun
):
    for number, expected in ((0, without), (2, alone), (2, by_torchrun)):
        gpus(number)
        if expected:
            assert choose_device(name) == torch.device(expected)
        else:
            with pytest.raises(UserError, match=rf"--device.*'{name}'.* cpu") as caught:
                choose_device(name)
            assert caught.value.status == 2
            assert ("cuda, cuda:0, cuda:1" in str(caught.value)) == (number == 2)
        if number:
            torchrun(3, 4, 2)


# PyTorch without code for a GPU, and a GPU whose memory others use.
@pytest.mark.parametrize("error", ["CUDA error: no kernel image\nCompile with X", "out of memory"])
def test_a_gpu_that_cannot_be_used_is_one_sentence_and_auto_takes_the_cpu(
    gpus, torchrun, capsys, error
):
    gpus(2, error)
    reason = error.splitlines()[0]
    assert choose_device("auto") == torch.device("cpu")
    warning = capsys.readouterr().err
    assert warning.startswith("Warning: ") and reason in warning and warning.count("\n") == 1
    with pytest.raises(UserError, match=reason) as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value) and "--device cpu" in str(caught.value)
    # A process that starts others leaves the memory of the GPU to them.
    assert choose_device("auto", probe=False) == torch.device("cuda")
    torchrun(3, 4, 2)  # its processes do not take devices of two kinds
    with pytest.raises(UserError, match=reason):
        choose_device("auto")


@pytest.mark.parametrize(
    ("change", "other", "usual"),
    [
        (torch.set_default_dtype, torch.float64, torch.float32),
        (torch.set_default_device, "meta", "cpu"),
    ],
)
def test_a_changed_default_of_pytorch_is_refused(change, other, usual):
    check_defaults()
    try:
        change(other)
        with pytest.raises(UserError, match="delete the line"):
            check_defaults()
    finally:
        change(usual)
