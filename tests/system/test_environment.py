"""What PyTorch reads from the environment, by what is known of the processor."""

import os
from pathlib import Path

import pytest
from conftest import SCRIPT

from codebase.system.processor import place_in_team, prepare_environment

CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ATEN_CPU_CAPABILITY")
AMD, INTEL = "vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"
SPINS = {"GOMP_SPINCOUNT": "3000"}
# Runs the script until it imports PyTorch, and prints what PyTorch would read.
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
    """The environment that is prepared for a processor and a user's choices."""

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
        for name in CHOSEN:  # so that what was there is put back
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
def test_what_is_fast_depends_on_the_processor(prepare, processor, prepared):
    assert prepare(processor) == prepared


@pytest.mark.parametrize(
    "choice",
    [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}],
)
def test_what_the_user_has_chosen_stays(prepare, choice):
    assert prepare(INTEL, **choice) == choice
    kernels = {"ATEN_CPU_CAPABILITY": "default"}
    assert prepare(f"{AMD} avx512f", **choice, **kernels) == choice | kernels


def test_the_program_prepares_the_environment_before_pytorch_reads_it(start):
    """And nothing else does: importing the code leaves it alone, as tests/test_layers.py shows."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    process = start("-c", PROGRAM, SCRIPT, env=environment)
    assert process.communicate() == ("3000\n", "")


def test_only_the_processes_of_torchrun_have_a_place_in_a_team(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place_in_team() == (0, 1, 0)  # another launcher's
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert place_in_team() == (3, 4, 1)
