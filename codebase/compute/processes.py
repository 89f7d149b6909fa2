"""The processes that torchrun starts, and how they share a batch or several runs."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from codebase.compute.processor import torchrun_ranks
from codebase.system.errors import UserError
from codebase.system.streams import silenced

T = TypeVar("T")


class Processes:
    """The processes that work together, of which this one is number `rank` of `size`.

    Without torchrun there is one, and the methods return their arguments. Every process must call
    every method.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.first = rank == 0  # the first process prints, saves, measures and plots

    def shard(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, split along the first dimension."""
        return batch.chunk(self.size)[self.rank]

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in a single message."""
        if self.size > 1:
            flat = torch.cat([x.flatten() for x in tensors])
            dist.all_reduce(flat)
            means = (flat / self.size).split([x.numel() for x in tensors])
            for x, mean in zip(tensors, means, strict=True):
                x.copy_(mean.view_as(x))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))  # a CPU tensor, so that no GPU is waited for
        dist.all_reduce(flags)
        return flags.item() > 0

    def broadcast(self, value: T) -> T:
        """The value that the first process passes."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, values: dict) -> dict:
        """The union of the dictionaries of all processes."""
        parts = [values] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, values)
        return {key: value for part in parts for key, value in part.items()}


SINGLE = Processes()


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Connect the processes of torchrun inside the block, where only the first one prints.

    Destroying the group can deadlock, so it stays; end the process with os._exit. Raises UserError
    if another process ends, or if devices of this kind cannot share work.
    """
    rank, size, _ = torchrun_ranks()
    if size == 1:
        yield SINGLE
        return
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"torchrun cannot share work on {device}; use --device cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(dist.rendezvous("env://"))
        # After a restart the store still holds the addresses of the processes that have ended.
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        # On several machines the counts of restarts may differ. Then this wait ends with an error.
        store.set(f"rank {rank}", "")
        store.wait([f"rank {other}" for other in range(size)], timedelta(minutes=5))
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        # A process that has finished its runs waits for the others, however long they take.
        limit = timedelta(weeks=10)
        dist.init_process_group(backend, timeout=limit, world_size=size, rank=rank, store=store)
        with nullcontext() if rank == 0 else silenced():
            yield Processes(rank, size)
    except RuntimeError as error:
        if "gloo" in str(error) or isinstance(error, dist.DistError):
            reason = "another process has ended or cannot be reached; see its message"
            raise UserError(f"{reason}. --resume 1 continues from what is saved") from error
        raise
