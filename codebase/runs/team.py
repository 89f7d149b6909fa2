"""The processes that torchrun has started: who does what, and how they share a batch."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from codebase.system.errors import UserError
from codebase.system.processor import place_in_team
from codebase.system.streams import only_errors

T = TypeVar("T")
MOST_SECONDS = 300  # for all processes to find each other
# Groups that were left. Their destructor would wait for threads that may wait for Python, which
# waits for the destructor: in this list they live until the process ends.
_left: list[dist.ProcessGroup | None] = []


class Team:
    """The processes that work together, of which this is number `rank` of `size`.

    Without torchrun there is one, and the methods return what they are given. Every method must be
    called by all processes.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.first = rank == 0  # the one that prints, saves, measures and draws

    def share(self, rows: Tensor) -> Tensor:
        """This process's share of the rows of a batch."""
        return rows.chunk(self.size)[self.rank]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes into each of the tensors, in a single message."""
        if self.size > 1:
            flat = torch.cat([x.flatten() for x in tensors])
            dist.all_reduce(flat)
            parts = (flat / self.size).split([x.numel() for x in tensors])
            for x, part in zip(tensors, parts, strict=True):
                x.copy_(part.view_as(x))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process, so that all do the same after the same step."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags)
        return flags.item() > 0

    def from_first(self, value: T) -> T:
        """What the first process gives here."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, values: dict) -> dict:
        """The dictionaries of all processes in one."""
        parts = [values] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, values)
        return {key: value for part in parts for key, value in part.items()}


ALONE = Team()


@contextmanager
def assembled(device: torch.device) -> Iterator[Team]:
    """The processes that torchrun has started, connected; one without torchrun.

    All but the first print nothing inside the block.

    Raises:
        UserError: another process has ended, or processes cannot share work on such devices.
    """
    rank, size, _ = place_in_team()
    team = Team(rank, size)
    if team.size == 1:
        yield team
        return
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"torchrun cannot share work on {device}; use --device cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        _connect(team, "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
        with nullcontext() if team.first else only_errors():
            yield team
    except RuntimeError as error:
        lost = dist.DistNetworkError | dist.DistStoreError
        if "gloo" in str(error) or isinstance(error, lost):
            advice = "its own message says why; with --resume 1 the run goes on"
            raise UserError(f"ended, because another process has ended; {advice}") from error
        if isinstance(error, dist.DistError):
            raise UserError(str(error).splitlines()[0]) from error
        raise
    finally:
        if dist.is_initialized():
            _left.append(dist.group.WORLD)
            dist.destroy_process_group()


def _connect(team: Team, backend: str) -> None:
    """Have the processes of this start find each other.

    The store of torchrun still has the addresses of processes that ended before a restart. The
    first process therefore serves a new one, whose address it announces there until all have met.

    Raises:
        UserError: the first process cannot be reached.
    """
    launcher, rank, size = next(dist.rendezvous("env://"))
    store, end, address = None, time.monotonic() + MOST_SECONDS, ""
    if team.first:
        alone = os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]
        host = "localhost" if alone else _own_address()
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        launcher.set("address", f"{host} {store.port}")
    while store is None:
        if time.monotonic() > end:
            raise UserError(f"the first process cannot be reached at {address}")
        with suppress(dist.DistError):  # an earlier start announced it, and nobody serves it
            address = launcher.get("address").decode()
            host, port = address.split()
            store = dist.TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=5))
    # A process that has finished its runs waits for the others for as long as they take.
    limit = timedelta(weeks=10)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    if team.first:
        launcher.delete_key("address")


def _own_address() -> str:
    """Where other machines reach this one: MASTER_ADDR may be another machine's."""
    launcher = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with socket.create_connection(launcher) as connection:
        own = connection.getsockname()[0]
    return launcher[0] if ip_address(own).is_loopback else own
