"""A training run: the training step, its state, and the loop around it."""

from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from codebase.bounds import Measured
from codebase.compute.cuda_graph import GraphedGradients
from codebase.compute.processes import SINGLE, Processes
from codebase.compute.threads import training_step
from codebase.data import Images, batch_indices, binarize
from codebase.models.vae import VAE
from codebase.runs.checkpoint import load_model
from codebase.runs.folder import RunFolder
from codebase.runs.provenance import plain_numbers, restore_numbers, warn_of_changed_files
from codebase.runs.run_writer import RunWriter
from codebase.settings import SCHEDULES, Settings
from codebase.system import seeds
from codebase.system.errors import UserError


def new_model(settings: Settings) -> VAE:
    """A model with the run's own initial weights, on the CPU."""
    with seeds.seeded(seeds.seed_for(settings.run, seeds.WEIGHTS), torch.device("cpu")):
        return VAE(nn=settings.nn, name=settings.name, z_dim=settings.z)


def load_trained(settings: Settings, device: torch.device | str) -> VAE:
    """The run's model as it was saved after `iter_max` steps, or a UserError."""
    model, folder = new_model(settings).to(device), RunFolder(settings)
    load_model(model, folder.model(settings.iter_max))
    warn_of_changed_files(folder, model)
    return model


class Training:
    """A model, its optimizer, and the number of steps they have taken.

    Args:
        processes: the processes that share each batch.
        cuda_graph: whether a GPU may compute the gradients as a CUDA graph.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        processes: Processes = SINGLE,
        cuda_graph: bool = True,
    ):
        self.settings, self.device, self.processes = settings, device, processes
        model = new_model(settings)
        # Processes begin with equal weights, even if a student's networks set their own.
        model.load_state_dict(processes.broadcast(model.state_dict()))
        self.model = model.to(device)
        self.optimizer = Adam(self.model.parameters(), lr=settings.lr, fused=True)
        self.step = 0
        self.graphed = None
        if cuda_graph and device.type == "cuda":
            self.graphed = GraphedGradients(self.loss_and_gradients, self.model)

    def take_step(self, images: Tensor) -> Tensor:
        """Take one step of Adam.

        Nothing here waits for the device, except in the steps that check the CUDA graph.

        Args:
            images: (n, 784) uint8, a batch, or this process's part of one.

        Returns:
            loss, NELBO, KL and REC of the batch, computed before the parameters change, (4,).
        """
        factor = SCHEDULES[self.settings.lr_schedule](self.step, self.settings.iter_max)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
        # All randomness of a step depends only on (run, step, rank). Each process has a seed.
        part = self.step * self.processes.size + self.processes.rank
        seed = seeds.seed_for(self.settings.run, seeds.STEP, part)
        reseed = partial(seeds.seed_all, seed, self.device)
        if self.graphed:
            losses = self.graphed(images, reseed)
        else:
            reseed()
            losses = self.loss_and_gradients(images)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.processes.all_reduce_mean([losses, *gradients])
        self.optimizer.step()
        self.step += 1
        return losses

    def loss_and_gradients(self, images: Tensor) -> Tensor:
        """Compute loss, NELBO, KL and REC of a batch, (4,), and the gradients of the parameters."""
        self.optimizer.zero_grad()  # frees the old gradients, so that backward reuses their memory
        loss, summaries = self.model.loss(binarize(images))
        kl = summaries["gen/kl_z"]
        if self.settings.kl_weight != 1:  # the beta-VAE of Higgins et al. 2017, equation 4
            if not getattr(kl, "requires_grad", False):
                reason = "loss of codebase.models.vae returns gen/kl_z without a gradient"
                raise UserError(f"argument --kl_weight: {reason}; do not detach it", 2)
            loss = loss + (self.settings.kl_weight - 1) * kl
        loss.backward()
        return torch.stack([loss, -summaries["gen/elbo"], kl, summaries["gen/rec"]]).detach()

    def state_dict(self) -> dict:
        """Everything that a step changes."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "numbers": plain_numbers(self.model),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore a state of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Adam matches its state by position, so check the shapes.
        for parameter, averages in self.optimizer.state.items():
            if any(x.shape not in ((), parameter.shape) for x in averages.values()):
                raise ValueError("the optimizer's averages belong to other parameters")
        restore_numbers(self.model, state.get("numbers", {}))
        if not isinstance(state["step"], int) or state["step"] < 1:
            raise ValueError(f"{state['step']!r} is not a number of steps")
        self.step = state["step"]


def train(
    settings: Settings,
    images: Images,
    device: torch.device | str,
    iter_save: int = 10_000,
    resume: bool = False,
    processes: Processes = SINGLE,
    cuda_graph: bool = True,
    seconds_between_states: float = 60,
) -> tuple[VAE, Measured | None]:
    """Train the run's model for `iter_max` steps, saving it every `iter_save` steps and at the end.

    Besides the models, `training-state.pt` is kept up to date for resuming, and `metrics.csv` with
    the bounds. An earlier run of the same name is moved aside, unless `resume` continues it.

    Returns:
        the model, and its bounds; these are None if the run was complete before, or on later ranks.

    Raises:
        UserError: a batch is larger than the data set, the processes do not divide it, the loss no
            longer matches its CUDA graph, the training diverges, or the folder cannot be used.
        Interrupted: a signal came, and the state is saved.
    """
    device = torch.device(device)
    n, batch_size = len(images.train), settings.batch_size
    if batch_size > n:
        raise UserError(f"argument --batch_size: must be at most {n}, the training images", 2)
    if batch_size % processes.size:
        raise UserError(
            f"argument --batch_size: must be a multiple of {processes.size}, the processes", 2
        )
    training = Training(settings, device, processes, cuda_graph)
    writer = RunWriter(training, images, iter_save, seconds_between_states)
    with writer.session(resume), seeds.preserved(device):
        pixels = images.train.to(device)
        batches = batch_indices(n, batch_size, settings.run, device, training.step)
        with training_step(training, pixels[:batch_size]) as take_step:
            while training.step < settings.iter_max:
                batch = pixels.index_select(0, processes.shard(next(batches)))
                writer.after_step(take_step(batch))
    return training.model, writer.measured
