"""The processes that work together: what each does of a batch, and what all agree on."""

from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributed as dist
from torch.distributed import TCPStore

from codebase.datasets import loading
from codebase.runs import team
from codebase.runs.folder import run_folder
from codebase.runs.metrics import read_metrics
from codebase.runs.team import ALONE, Team, assembled
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.train import train

CPU = torch.device("cpu")
# What torchrun tells the only process of one.
ONE_PROCESS = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
ONE_PROCESS |= {"RANK": "0", "LOCAL_RANK": "0"}


def test_a_team_of_one_gives_back_what_it_is_given():
    rows = torch.arange(6)
    assert torch.equal(ALONE.share(rows), rows)
    assert [ALONE.any(flag) for flag in (True, False)] == [True, False]
    assert ALONE.from_first("a") == "a"
    assert ALONE.gather({1: "a"}) == {1: "a"}
    x = torch.ones(3)
    ALONE.average([x])
    assert (ALONE.first, ALONE.size, x.tolist()) == (True, 1, [1, 1, 1])


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_shares_are_alike_and_together_the_batch(size):
    rows = torch.randperm(12)
    shares = [Team(rank, size).share(rows) for rank in range(size)]
    assert {len(share) for share in shares} == {12 // size}
    assert torch.equal(torch.cat(shares), rows)


def test_what_cannot_be_shared_is_said(synthetic_images, monkeypatch):
    with pytest.raises(UserError, match="2 processes cannot share --batch_size 201 evenly; choose"):
        train(Settings(batch_size=201), synthetic_images, CPU, team=Team(0, 2))
    for name, value in (ONE_PROCESS | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    sentence = "torchrun cannot share work on mps; use --device cpu"
    with pytest.raises(UserError, match=sentence), assembled(torch.device("mps")):
        pass


@pytest.mark.slow
def test_a_first_process_that_cannot_be_reached_is_said(monkeypatch):
    """An earlier start's address, at which nobody listens any more."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    store.set("address", "localhost 9")
    place = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    for name, value in (ONE_PROCESS | place | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(team, "MOST_SECONDS", 1)
    with (
        pytest.raises(UserError, match=r"^the first process cannot be reached at localhost 9$"),
        assembled(CPU),
    ):
        pass


@pytest.fixture
def second_machine(monkeypatch):
    """The environment of a first process whose launcher is on another machine."""
    place = {"WORLD_SIZE": "3", "MASTER_ADDR": "another-machine", "MASTER_PORT": "29500"}
    for name, value in (ONE_PROCESS | place).items():
        monkeypatch.setenv(name, value)


class Launcher(dict):
    """The store of torchrun, as far as it is asked."""

    set = dict.__setitem__


@pytest.mark.parametrize(
    ("own", "host"), [("192.0.2.7", "192.0.2.7"), ("127.0.0.1", "another-machine")]
)
def test_the_others_are_told_where_their_machines_reach_the_first(
    second_machine, monkeypatch, own, host
):
    """By its address towards the launcher, unless that is one on its own machine only."""
    launcher, asked = Launcher(), []

    def connect(address):
        asked.append(address)
        connection = MagicMock()
        connection.__enter__().getsockname.return_value = (own, 40_000)
        return connection

    def no_group(*_, **__):
        raise UserError("enough")

    monkeypatch.setattr(dist, "rendezvous", lambda _: iter([(launcher, 0, 3)]))
    monkeypatch.setattr(dist, "TCPStore", lambda host, *_, **__: SimpleNamespace(port=1234))
    monkeypatch.setattr(dist, "init_process_group", no_group)
    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(UserError, match="enough"), assembled(CPU):
        pass
    assert launcher == {"address": f"{host} 1234"}
    assert asked == [("another-machine", 29500)]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), "ended, bec"),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "ended, because another process h"),
        (dist.DistStoreError("wait timeout after 300000ms"), "ended, because another process has"),
        (dist.DistBackendError("NCCL error\nmore lines"), "NCCL error$"),
        (UserError("of its own"), "of its own$"),
        (RuntimeError("a mistake"), None),
    ],
)
def test_an_error_of_another_process_is_told_as_such_and_no_other_is(
    second_machine, monkeypatch, error, sentence
):
    def fail(_):
        raise error

    monkeypatch.setattr(dist, "rendezvous", fail)
    kind = UserError if sentence else RuntimeError
    with pytest.raises(kind, match=f"^{sentence or 'a mistake'}") as caught, assembled(CPU):
        pass
    assert type(caught.value) is kind


def test_a_process_takes_the_gpu_that_was_chosen_for_it(second_machine, monkeypatch):
    """NCCL would else have all of them on the first one."""
    taken = []

    def no_others(_):
        raise UserError("enough")

    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(dist, "rendezvous", no_others)
    with pytest.raises(UserError, match="enough"), assembled(torch.device("cuda:1")):
        pass
    assert taken == [torch.device("cuda:1")]


@pytest.mark.parametrize(("rank", "loaded"), [(0, ["auto"]), (1, ["synthetic"])])
def test_what_auto_is_the_first_process_decides_for_all(
    run_vae, small, synthetic_images, monkeypatch, rank, loaded
):
    """The second one would load MNIST, and each names its run after the first one's images."""
    images = {"auto": synthetic_images if rank == 0 else synthetic_images._replace(name="mnist")}
    images["synthetic"] = synthetic_images
    asked, trained = [], []

    class Pretended(Team):
        def from_first(self, value):
            return value if self.first else "synthetic"

    @contextmanager
    def pretend(device):
        yield Pretended(rank, 2)

    def load(name, folder):
        asked.append(name)
        return images[name]

    def no_training(settings, images, *_, **__):
        trained.append((settings.dataset, images.name))
        raise UserError("enough")

    monkeypatch.setattr(team, "assembled", pretend)
    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("codebase.train.train", no_training)
    assert run_vae(*small, "--dataset", "auto").returncode == 1
    assert asked == loaded
    assert trained == [("synthetic", "synthetic")]


@pytest.mark.slow
def test_one_process_of_torchrun_is_the_same_bytes_as_none(run_vae, small, tmp_path, monkeypatch):
    settings = Settings("tiny", 3, 200, iter_max=100, dataset="synthetic")
    results = []
    for name, environment in {"alone": {}, "one": ONE_PROCESS}.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            arguments = ("--batch_size", 200, "--iter_max", 100, "--iter_save", 50)
            assert run_vae(*small, *arguments).returncode == 0
        folder = run_folder(settings)
        models = [path.read_bytes() for path in sorted(folder.glob("model-*.pt"))]
        results.append((models, [row[:-1] for row in read_metrics(folder)]))
    assert len(models) == 2
    assert results[0] == results[1]
