"""The processes of torchrun: what each one does, and what all of them agree on."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist

from codebase.compute import processes
from codebase.compute.processes import SINGLE, Processes, connected
from codebase.datasets import loading
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings
from codebase.system.errors import DownloadError, UserError
from codebase.train import train

CPU = torch.device("cpu")
# The environment that torchrun sets for a single process, and for one of two.
ONE_PROCESS = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
ONE_PROCESS |= {"RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RESTART_COUNT": "0"}


@pytest.fixture
def one_of_two(monkeypatch):
    for name, value in (ONE_PROCESS | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)


def test_a_single_process_returns_its_arguments():
    batch = torch.arange(6)
    assert torch.equal(SINGLE.shard(batch), batch)
    assert [SINGLE.any(flag) for flag in (True, False)] == [True, False]
    assert SINGLE.broadcast("a") == "a"
    assert SINGLE.gather({1: "a"}) == {1: "a"}
    x = torch.ones(3)
    SINGLE.all_reduce_mean([x])
    assert (SINGLE.first, SINGLE.size, x.tolist()) == (True, 1, [1, 1, 1])


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_shards_have_equal_sizes_and_together_are_the_batch(size):
    batch = torch.randperm(12)
    shards = [Processes(rank, size).shard(batch) for rank in range(size)]
    assert {len(shard) for shard in shards} == {12 // size}
    assert torch.equal(torch.cat(shards), batch)


def test_work_that_cannot_be_shared_is_refused(synthetic_images, one_of_two):
    with pytest.raises(UserError, match=r"--batch_size: .*2"):
        train(Settings(batch_size=201), synthetic_images, CPU, processes=Processes(0, 2))
    with pytest.raises(UserError, match="--device cpu"), connected(torch.device("mps")):
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), "another pro"),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "another process has ended"),
        (dist.DistStoreError("wait timeout after 300000ms"), "another process has ended"),
        (UserError("this process's own"), "this process's own$"),
        (RuntimeError("a mistake"), None),
    ],
)
def test_only_errors_of_communication_are_reported_as_such(one_of_two, monkeypatch, error, message):
    def fail(_):
        raise error

    monkeypatch.setattr(dist, "rendezvous", fail)
    kind = UserError if message else RuntimeError
    with pytest.raises(kind, match=f"^{message or 'a mistake'}") as caught, connected(CPU):
        pass
    assert type(caught.value) is kind


def test_a_process_takes_the_gpu_that_was_chosen_for_it(one_of_two, monkeypatch):
    """Otherwise, NCCL would use the first one for all processes."""
    taken = []

    def stop(_):
        raise UserError("enough")

    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(dist, "rendezvous", stop)
    with pytest.raises(UserError, match="enough"), connected(torch.device("cuda:1")):
        pass
    assert taken == [torch.device("cuda:1")]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_decides_for_all_which_data_auto_means(run_vae, small, monkeypatch, rank):
    trained = []

    class Pretended(Processes):
        def broadcast(self, value):
            return value if self.first else "synthetic"

    @contextmanager
    def pretend(_):
        yield Pretended(rank, 2)

    def find_or_download(*_):
        assert rank == 0
        raise DownloadError("no network")

    def no_training(settings, images, *_, **__):
        trained.append((settings.dataset, images.name))
        raise UserError("enough")

    monkeypatch.setattr(processes, "connected", pretend)
    monkeypatch.setattr(loading, "find_or_download", find_or_download)
    monkeypatch.setattr("codebase.train.train", no_training)
    assert run_vae(*small, "--dataset", "auto").returncode == 1
    assert trained == [("synthetic", "synthetic")]


@pytest.mark.slow
def test_one_process_of_torchrun_gives_the_same_bytes_as_none(
    run_vae, small, tmp_path, monkeypatch
):
    results = []
    for name, environment in {"alone": {}, "one": ONE_PROCESS}.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            assert run_vae(*small, "--iter_max", 100, "--iter_save", 50).returncode == 0
        folder = RunFolder(Settings("tiny", 3, dataset="synthetic"))
        models = [folder.model(step).read_bytes() for step in (50, 100)]
        results.append((models, [row[:-1] for row in read_metrics(folder)]))
    assert results[0] == results[1]
