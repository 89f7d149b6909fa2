"""A run that is killed a hundred times, at random moments, as by `kill -9`."""

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
from training import TINY, after_each_step, results_in, train_small

from codebase import evaluate
from codebase.models import nns
from codebase.runs import checkpoint
from codebase.runs.folder import model_path, run_folder, saved_steps, state_path

pytestmark = pytest.mark.slow


def train_and_tell(folder: Path, iter_max: int, pipe: Connection) -> None:
    """Train small networks, saving after every step, and tell of each before it is saved."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    pipe.send(("start", os.getpid()))

    def tell(_, adam):
        pipe.send(("step", int(next(iter(adam.state.values()))["step"])))

    with after_each_step(tell):
        settings = TINY._replace(iter_max=iter_max)
        train_small(settings, iter_save=10, resume=True, seconds_between_states=0)


def train_on_demand(pipe: Connection) -> None:
    """Fork a process for each run that is asked for, and tell of its end.

    So everything is imported once for all of them.
    """
    nns.__path__.append(str(NETWORKS))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    evaluate.SUBSET_PASSES = 1  # which is not what this is about
    context = multiprocessing.get_context("fork")
    with suppress(EOFError):
        while True:
            process = context.Process(target=train_and_tell, args=(*pipe.recv(), pipe))
            process.start()
            process.join()
            pipe.send(("end", process.exitcode))


@pytest.fixture(scope="module")
def trainer(forking):
    """The other end of the pipe of a process that trains on demand."""
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
    """What a kill has left behind."""

    reached: int  # the last step that was told of
    saved: int  # the step of the state
    models: dict[int, int]  # a hash of each, by its step
    is_during_save: bool


def step_of(folder: Path) -> int:
    return checkpoint.load(state_path(folder))["training"]["step"]


def kill_once(trainer: Connection, place: Path, chance: random.Random) -> Kill:
    """Have a run go on for some steps, and kill it."""
    trainer.send((place, 1_000_000))
    _, process = told(trainer)
    for _ in range(chance.randint(1, 4)):  # of a step that is done and is now saved
        _, reached = told(trainer)
    time.sleep(chance.uniform(0, 0.01))
    os.kill(process, signal.SIGKILL)
    while (last := told(trainer))[0] == "step":
        reached = last[1]
    assert last == ("end", -signal.SIGKILL)
    folder = place / run_folder(TINY)
    models = {step: model_path(folder, step).read_bytes() for step in saved_steps(folder)}
    hashes = {step: hash(content) for step, content in models.items()}
    saved = step_of(folder) if state_path(folder).exists() else 0
    return Kill(reached, saved, hashes, bool(temporary_files(folder)))


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the run that is killed was started."""
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


def test_a_kill_loses_no_step_but_the_one_that_is_being_saved(kills):
    assert all(kill.saved >= kill.reached - 1 for kill in kills)
    assert kills[-1].reached > 100


def test_a_run_that_was_killed_ends_in_the_bytes_of_one_that_was_not(
    trainer, kills, place, tmp_path
):
    for folder in (place, tmp_path):
        trainer.send((folder, kills[-1].saved + 10))
        while (last := told(trainer))[0] != "end":
            pass
        assert last == ("end", 0)
    killed, whole = (folder / run_folder(TINY) for folder in (place, tmp_path))
    assert kills[-1].models.keys() < {*saved_steps(killed)}
    assert results_in(killed) == results_in(whole)
    assert temporary_files(place) == []
