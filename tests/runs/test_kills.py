"""A run that is killed a hundred times by SIGKILL, at random moments."""

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import NETWORKS
from training import RUN, TINY, after_each_step, results_in, state_step, train_small

from codebase import evaluate
from codebase.models import nns
from codebase.runs.folder import RunFolder

pytestmark = pytest.mark.slow


def train_and_tell(folder: Path, iter_max: int, pipe: Connection) -> None:
    """Train small networks, send the number of each step, and then save it."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    pipe.send(("start", os.getpid()))

    def tell(_, adam):
        pipe.send(("step", int(next(iter(adam.state.values()))["step"])))

    with after_each_step(tell):
        settings = TINY._replace(iter_max=iter_max)
        train_small(settings, iter_save=10, resume=True, seconds_between_states=0)


def train_on_demand(pipe: Connection) -> None:
    """Fork a process for each request, and send its exit code. Imports are done only once."""
    nns.__path__.append(str(NETWORKS))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    evaluate.SUBSET_PASSES = 1  # fast
    context = multiprocessing.get_context("fork")
    with suppress(EOFError):
        while True:
            process = context.Process(target=train_and_tell, args=(*pipe.recv(), pipe))
            process.start()
            process.join()
            pipe.send(("end", process.exitcode))


@pytest.fixture(scope="module")
def trainer(forking):
    """A pipe to a process that trains on demand."""
    pipe, its_end = forking.Pipe()
    process = forking.Process(target=train_on_demand, args=(its_end,))
    process.start()
    its_end.close()
    yield pipe
    pipe.close()
    process.join()


def told(trainer: Connection) -> tuple[str, int]:
    assert trainer.poll(300)
    return trainer.recv()


class Kill(NamedTuple):
    """What is in the folder after a kill."""

    reached: int  # the last step that was sent
    saved: int  # the step of the state
    models: dict[int, int]  # a hash of each, by its step
    is_during_save: bool


def kill_once(trainer: Connection, place: Path, chance: random.Random) -> Kill:
    """Resume the run for some steps, and kill it."""
    trainer.send((place, 1_000_000))
    _, process = told(trainer)
    for _ in range(chance.randint(1, 4)):  # a step is done, and is saved next
        _, reached = told(trainer)
    time.sleep(chance.uniform(0, 0.01))
    os.kill(process, signal.SIGKILL)
    while (last := told(trainer))[0] == "step":
        reached = last[1]
    assert last == ("end", -signal.SIGKILL)
    folder = RunFolder(TINY, place / RUN.path.parent)
    hashes = {step: hash(folder.model(step).read_bytes()) for step in folder.saved_steps()}
    return Kill(reached, state_step(folder), hashes, any(folder.path.glob(".*.tmp")))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The current folder of the run that is killed."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def kills(trainer, place) -> list[Kill]:
    chance = random.Random(0)
    return [kill_once(trainer, place, chance) for _ in range(100)]


def test_a_hundred_kills_lose_no_model(kills):
    for before, after in pairwise(kills):
        assert before.models.items() <= after.models.items()
    assert len(kills[-1].models) > 10
    assert any(kill.is_during_save for kill in kills)


def test_a_kill_loses_at_most_the_step_that_is_being_saved(kills):
    assert all(kill.saved >= kill.reached - 1 for kill in kills)
    assert kills[-1].reached > 100


def test_a_killed_run_ends_in_the_same_bytes(trainer, kills, place, tmp_path):
    for folder in (place, tmp_path):
        trainer.send((folder, kills[-1].saved + 10))
        while (last := told(trainer))[0] != "end":
            pass
        assert last == ("end", 0)
    killed = RunFolder(TINY, place / RUN.path.parent)
    assert kills[-1].models.keys() < {*killed.saved_steps()}
    assert results_in(killed.path) == results_in(tmp_path / RUN.path)
    assert not list(place.rglob(".*.tmp"))
