"""The processes of torchrun: what each one does. runs/test_torchrun.py has several of them."""

import pytest
import torch
import torch.distributed as dist

from codebase.compute.processes import SINGLE, Processes, connected
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.train import train

CPU = torch.device("cpu")


def test_a_single_process_returns_its_arguments(torchrun):
    torchrun(size=1)
    with connected(CPU) as single:
        assert single is SINGLE
    batch = torch.arange(6)
    assert torch.equal(SINGLE.shard(batch), batch)
    assert [SINGLE.any(flag) for flag in (True, False)] == [True, False]
    assert SINGLE.broadcast("a") == "a"
    assert SINGLE.gather({1: "a"}) == {1: "a"}
    x = torch.ones(3)
    SINGLE.all_reduce_mean([x])
    assert (SINGLE.first, SINGLE.size, x.tolist()) == (True, 1, [1, 1, 1])


def test_the_shards_have_equal_sizes_and_together_are_the_batch():
    batch = torch.randperm(12)
    for size in (1, 2, 3, 6):
        shards = [Processes(rank, size).shard(batch) for rank in range(size)]
        assert {len(shard) for shard in shards} == {12 // size}
        assert torch.equal(torch.cat(shards), batch)


def test_work_that_cannot_be_shared_is_refused(synthetic_images, torchrun):
    torchrun()
    with pytest.raises(UserError, match=r"--batch_size: .*2"):
        train(Settings(batch_size=201), synthetic_images, CPU, processes=Processes(0, 2))
    with pytest.raises(UserError, match="--device cpu"), connected(torch.device("mps")):
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed"), "another process"),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "another process"),
        (dist.DistStoreError("wait timeout after 300000ms"), "another process"),
        (UserError("this process's own"), "this process's own"),
        (RuntimeError("a mistake"), None),
    ],
)
def test_only_errors_of_communication_are_reported_as_such(torchrun, monkeypatch, error, message):
    def fail(_):
        raise error

    torchrun()
    monkeypatch.setattr(dist, "rendezvous", fail)
    kind = UserError if message else RuntimeError
    with pytest.raises(kind, match=message or "a mistake") as caught, connected(CPU):
        pass
    assert type(caught.value) is kind


def test_a_process_takes_the_gpu_that_was_chosen_for_it(torchrun, monkeypatch):
    """Otherwise, NCCL would use the first one for all processes."""
    taken = []

    def stop(_):
        raise UserError("enough")

    torchrun()
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(dist, "rendezvous", stop)
    with pytest.raises(UserError, match="enough"), connected(torch.device("cuda:1")):
        pass
    assert taken == [torch.device("cuda:1")]
