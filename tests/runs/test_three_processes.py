"""Three processes that share their work over Gloo, started as torchrun does on two machines."""

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import wait_for
from torch.distributions import Normal
from training import (
    CPU,
    IMAGES,
    NETWORKS,
    TINY,
    after_each_step,
    files_in,
    results_in,
    train_small,
)

from codebase import train, utils
from codebase.data import batch_rows, binarize
from codebase.models import nns
from codebase.runs.folder import model_path, run_folder, state_path
from codebase.runs.metrics import read_metrics
from codebase.runs.team import assembled
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.seeds import STEP, seed_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo of Linux"),
]
SIZE = 3
# The rank on its machine, and how many processes are there: one on the first, two on the second.
MACHINES = [(0, 1), (0, 2), (1, 2)]
WHO = [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)]  # has set a flag
SHARED = TINY._replace(batch_size=15, iter_max=100)
FOLDER = run_folder(SHARED)
NOISY, DIVERGING = SHARED._replace(run=1, iter_max=3), SHARED._replace(lr=1e30, run=2)


def train_shared(settings: Settings = SHARED, **options) -> None:
    train_small(settings, iter_save=50, **options)


def stand_still(patch: pytest.MonkeyPatch) -> None:
    """Have nothing be drawn: neither the pixels nor the latent."""
    patch.setattr(train, "binarize", lambda images: images.gt(127).float())
    patch.setattr(utils, "sample_gaussian", lambda m, v: m)


def keep_what_is_drawn(patch: pytest.MonkeyPatch) -> tuple[list, list]:
    """Have the encoder draw noise of its own, too, and keep all noise and the weights.

    What is measured between the steps is in a list of its own.
    """
    kept, measured = [], []
    Encoder = nns.tiny.Encoder
    plain = Encoder.encode

    def encode(self, x):
        noise = torch.randn(len(x), 1)
        in_step = torch.is_grad_enabled()
        (kept if in_step else measured).append([x, noise, self.net.weight.detach().clone()])
        m, v = plain(self, x)
        return m + 0.1 * noise, v

    def sample_gaussian(m, v):
        z = Normal(m, v.sqrt()).rsample()
        if torch.is_grad_enabled():
            kept[-1].append(((z - m) / v.sqrt()).detach())
        return z

    patch.setattr(Encoder, "encode", encode)
    patch.setattr(utils, "sample_gaussian", sample_gaussian)
    return kept, measured


def draw_other_weights(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Have the weights of each process begin at others."""
    plain = train.new_model

    def new_model(settings):
        model = plain(settings)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += rank
        return model

    patch.setattr(train, "new_model", new_model)


def in_folder(name: str) -> None:
    """Go to another folder beside this one, where there is one for each process."""
    place = Path.cwd()
    os.chdir(place.parent.parent / name / place.name)


def work(rank: int, folder: Path, port: int) -> None:
    """Be one of the processes, which share no folder, and keep what comes out."""
    nns.__path__.append(NETWORKS)
    os.chdir(folder / "first" / str(rank))
    output = os.open(folder / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    local, local_size = MACHINES[rank]
    place = {"RANK": rank, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": local_size, "WORLD_SIZE": SIZE}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    told = {}
    try:
        with pytest.MonkeyPatch.context() as patch:
            be_together(rank, told, patch)
    except UserError as error:
        told["error"] = str(error)
    told["group is left"] = not dist.is_initialized()
    torch.save(told, folder / f"told-{rank}")


def be_together(rank: int, told: dict, patch: pytest.MonkeyPatch) -> None:
    """Share all kinds of work, and tell of it."""
    connect = dist.init_process_group

    def watched(*arguments, timeout, **options):
        told["patience"] = timeout
        connect(*arguments, timeout=timeout, **options)

    patch.setattr(dist, "init_process_group", watched)
    with assembled(CPU) as team:
        print("a line of output", flush=True)
        told["place"] = team.rank, team.size, team.first
        told["share"] = team.share(torch.arange(12)).tolist()
        tensors = [torch.full((2, 2), float(rank)), torch.tensor(10.0**rank)]
        team.average(tensors)
        told["average"] = tensors
        told["any"] = [team.any(rank in who) for who in WHO]
        told["of the first"] = team.from_first({"by": rank})
        told["gathered"] = team.gather({rank: f"of {rank}"})

        for name in ("first", "again"):
            in_folder(name)
            with pytest.MonkeyPatch.context() as noise:
                told[name], told["measured"] = keep_what_is_drawn(noise)
                draw_other_weights(noise, rank)
                train_shared(NOISY, team=team)

        stand_still(patch)
        in_folder("shared")
        told["before"] = files_in(Path())

        def end(step, _):
            if (rank, step) == (2, 60):
                signal.raise_signal(signal.SIGTERM)

        with after_each_step(end), pytest.raises(UserError) as caught:
            train_shared(team=team)
        told["interruption"] = str(caught.value), caught.value.status
        if team.first:
            shutil.copytree("checkpoints", "../../interrupted/checkpoints")
        train_shared(team=team, resume=True)
        told["after"] = files_in(Path())
        in_folder("begun alone")
        train_shared(team=team, resume=True)
        train_shared(DIVERGING, team=team, seconds_between_states=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all that the processes and this one do."""
    folder = tmp_path_factory.mktemp("processes")
    for name in ("first", "again", "shared", "begun alone"):
        for rank in range(SIZE):
            (folder / name / str(rank)).mkdir(parents=True)
    (folder / "alone").mkdir()
    (folder / "interrupted").mkdir()
    # What is in the way of a process that looks or writes where only the first one does.
    leftovers = ("shared/0", ".1.tmp"), ("shared/1", ".1.tmp"), ("shared/1", "model-00001.pt")
    for place, name in (*leftovers, ("shared/1", state_path(FOLDER).name)):
        (folder / place / FOLDER).mkdir(parents=True, exist_ok=True)
        (folder / place / FOLDER / name).write_text("of another run")
    return folder


@pytest.fixture(scope="module")
def told(folder, forking):
    """What each process tells. The first two have to wait until the third one is started."""
    launcher = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])
        stand_still(patch)
        patch.chdir(folder / "alone")
        train_shared(SHARED._replace(iter_max=50))
        shutil.copytree("checkpoints", folder / "begun alone" / "0" / "checkpoints")
        train_shared(resume=True)
    started = []
    try:
        for rank in range(SIZE):
            if rank == 2:
                address = launcher.get("address").decode()
            started.append(forking.Process(target=work, args=(rank, folder, launcher.port)))
            started[-1].start()
        wait_for(lambda: all(x.exitcode == 0 for x in started) or any(x.exitcode for x in started))
    finally:
        for process in started:
            process.kill()
    outputs = [(folder / f"output-{rank}").read_text() for rank in range(SIZE)]
    assert [process.exitcode for process in started] == [0] * SIZE, "\n".join(outputs)
    told = [torch.load(folder / f"told-{rank}", weights_only=False) for rank in range(SIZE)]
    for each, output in zip(told, outputs, strict=True):
        each["output"], each["address"] = output, address
        each["address is left"] = launcher.check(["address"])
    return told


def test_all_agree_on_what_they_are_and_share(told):
    assert [each["place"] for each in told] == [(rank, SIZE, rank == 0) for rank in range(SIZE)]
    assert [each["share"] for each in told] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for each in told:
        square, number = each["average"]
        assert (square.tolist(), number.item()) == ([[1, 1], [1, 1]], 37)
        assert each["any"] == [False, True, True, True, True, True]
        assert each["of the first"] == {"by": 0}
        assert each["gathered"] == {0: "of 0", 1: "of 1", 2: "of 2"}


def test_they_meet_where_other_machines_reach_the_first_and_are_patient(told):
    """Their launcher is on the machine of the first one here, so its own address will do."""
    assert told[0]["address"].split()[0] == "127.0.0.1"
    assert not told[0]["address is left"]  # for processes that are started again
    assert min(each["patience"] for each in told) > timedelta(weeks=1)
    assert all(each["group is left"] for each in told)


def test_only_the_first_measures_and_prints(told):
    assert [bool(each["measured"]) for each in told] == [True, False, False]
    assert [each["output"].count("a line of output") for each in told] == [1, 0, 0]
    assert [each["output"] for each in told[1:]] == ["", ""]
    assert "Resuming at step 60\n" in told[0]["output"]
    assert f"Saved to {model_path(FOLDER, 100)}\n" in told[0]["output"]


def test_each_draws_its_own_noise_and_all_have_the_weights_of_the_first(told):
    """However a solution draws: the pixels, the latent by `rsample`, and the encoder noise."""
    seen = set()
    rows = batch_rows(len(IMAGES.train), 15, NOISY.run, CPU)
    assert all(len(each["first"]) == NOISY.iter_max for each in told)
    for step, batch in zip(range(NOISY.iter_max), rows, strict=False):
        weights = told[0]["first"][step][2]
        for rank, share in enumerate(batch.chunk(SIZE)):
            x, noise, own_weights, latent = told[rank]["first"][step]
            torch.manual_seed(seed_for(NOISY.run, STEP, step, rank))
            assert torch.equal(x, binarize(IMAGES.train[share]))
            assert torch.equal(noise, torch.randn(5, 1))
            expected = Normal(torch.zeros(5, 2), torch.ones(5, 2)).rsample()
            torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(own_weights, weights)
            seen.add(noise[0].item())
    assert len(seen) == SIZE * NOISY.iter_max


def test_the_same_number_of_processes_gives_the_same_bytes_again(told, folder):
    once, again = (folder / name / "0" / run_folder(NOISY) for name in ("first", "again"))
    assert results_in(once) == results_in(again)
    assert (once / "model-00003.pt").exists()


def test_only_the_first_has_a_folder_and_looks_into_it(told, folder):
    """The others begin, resume and end without one, and leave what is there as it is."""
    assert [each["before"] == each["after"] for each in told] == [False, True, True]
    assert told[2]["before"] == {}
    assert not list((folder / "shared" / "0").rglob(".*.tmp"))
    assert [*told[0]["before"]] == [str(FOLDER / ".1.tmp")]
    for name in ("first", "begun alone"):
        assert [files_in(folder / name / rank) for rank in "12"] == [{}, {}]


def test_a_signal_to_one_ends_all_after_the_same_step(told, folder):
    state = torch.load(folder / "interrupted" / state_path(FOLDER))
    assert state["training"]["step"] == 60
    for each in told:
        sentence, status = each["interruption"]
        assert sentence.startswith("interrupted at step 60; ")
        assert status == 128 + signal.SIGTERM


def test_where_nothing_is_drawn_the_number_of_processes_changes_nothing_but_rounding(
    told, folder, monkeypatch
):
    """So the averaged gradient is that of the whole batch, and the rows are averages too.

    A run that three have begun may be gone on with by one, and the other way round.
    """
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])
    stand_still(monkeypatch)
    monkeypatch.chdir(folder / "interrupted")
    train_shared(resume=True)
    alone = folder / "alone" / FOLDER
    rows = read_metrics(alone)
    assert [(row.step, row.images) for row in rows][-3:] == [
        *((100, name) for name in ("train", "test", "all test"))
    ]
    for name in ("shared/0", "interrupted", "begun alone/0"):
        other = folder / name / FOLDER
        for step in (50, 100):
            one, another = (torch.load(model_path(path, step)) for path in (alone, other))
            for key, value in one.items():
                torch.testing.assert_close(another[key], value, atol=1e-5, rtol=0)
        for row, same in zip(rows, read_metrics(other), strict=True):
            assert (row.step, row.images) == (same.step, same.images)
            assert row.bounds == pytest.approx(same.bounds, rel=1e-4)


def test_what_the_first_refuses_ends_all(told):
    first, *others = (each["error"] for each in told)
    assert first.startswith("the training diverged: at step ")
    sentence = "ended, because another process has ended; its own message says why; with --resume 1"
    assert all(error.startswith(sentence) for error in others)
