"""The processes that torchrun has started: who does what, and how they share a batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from codebase.environment import launched
from codebase.errors import UserError
from codebase.streams import only_errors

T = TypeVar("T")


class Team:
    """The processes that work together, of which this is number `rank` of `size`.

    Without torchrun there is one, and the methods return what they are given. What several compute
    together is what one would, up to rounding, if all noise of the loss is `sample_gaussian` of
    (batch, z): dropout or a batch norm differs from process to process.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.first = rank == 0  # the one that prints, saves, measures and draws

    def share_loss(self, model: nn.Module) -> Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]:
        """The model's loss of a whole batch, of which every process computes its share.

        Its gradients and its summaries are the averages over all processes.
        """
        if self.size == 1:
            return model.loss
        return DistributedDataParallel(_SharedLoss(model, self))

    def rows(self, x: Tensor) -> Tensor:
        """This process's share of the rows of a batch."""
        return x.chunk(self.size)[self.rank]

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

    def in_turn(self, load: Callable[[str], T], name: str) -> T:
        """What `load` makes of the name: first here, then once on each machine, then everywhere.

        The first process decides the name: its result has a `name`, which the others load.
        """
        loaded = None
        for mine in (self.first, self.local_rank == 0, True):
            if mine and loaded is None:
                loaded = load(name)
            name = self.from_first(loaded.name if loaded else name)  # the others wait here
        return loaded

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
    team = Team(*launched())
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
            dist.destroy_process_group()


def _connect(team: Team, backend: str) -> None:
    """Have the processes of this start find each other.

    The store of torchrun still has the addresses of processes that ended before a restart. The
    first process therefore serves a new one, whose port it announces there until all have met.
    """
    launcher, rank, size = next(dist.rendezvous("env://"))
    host, store = os.environ["MASTER_ADDR"], None
    if team.first:
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        launcher.set("port", str(store.port))
    while store is None:
        port = int(launcher.get("port"))
        with suppress(dist.DistError):  # an earlier start announced the port, and nobody serves it
            store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))
    # A process that has finished its runs waits for the others for as long as they take.
    limit = timedelta(weeks=10)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    if team.first:
        launcher.delete_key("port")


class _SharedLoss(nn.Module):
    """The loss of this process's share of a batch, with the noise that one process would draw."""

    def __init__(self, model: nn.Module, team: Team):
        super().__init__()
        self.model, self.team = model, team

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the share, and the summaries averaged over all processes, for a batch x."""
        with _WholeNoise(self.team):
            loss, summaries = self.model.loss(self.team.rows(x))
        values = torch.stack(list(summaries.values())).detach()
        dist.all_reduce(values)
        return loss, dict(zip(summaries, values / self.team.size, strict=True))


class _WholeNoise(TorchFunctionMode):
    """Draw the latent noise of the whole batch, and take this process's share of it."""

    def __init__(self, team: Team):
        super().__init__()
        self.team = team

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is not torch.randn_like:
            return function(*args, **(kwargs or {}))
        share = args[0]
        whole = share.new_empty(self.team.size * len(share), *share.shape[1:])
        return self.team.rows(torch.randn_like(whole))
