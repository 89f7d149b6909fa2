"""A training run: its step, what the step changes, and the loop around it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from codebase.data import Images, batch_rows, binarize
from codebase.models.vae import VAE
from codebase.runs.checkpoint import load_model
from codebase.runs.folder import model_path, run_folder
from codebase.runs.keeper import Keeper
from codebase.runs.team import ALONE, Team
from codebase.settings import SCHEDULES, Settings
from codebase.system import seeds
from codebase.system.errors import UserError
from codebase.system.recording import Recorded


def new_model(settings: Settings) -> VAE:
    """A model with the run's own initial weights, on the CPU."""
    with seeds.seeded(seeds.seed_for(settings.run, seeds.WEIGHTS), torch.device("cpu")):
        return VAE(nn=settings.nn, name=settings.name, z_dim=settings.z)


def load_trained(settings: Settings, device: torch.device | str) -> VAE:
    """The run's model as it was saved after `iter_max` steps, or a CheckpointError."""
    model = new_model(settings).to(device)
    load_model(model, model_path(run_folder(settings), settings.iter_max))
    return model


class Training:
    """What trains: a model, its optimizer, and the number of steps they have taken.

    Args:
        team: the processes that share each batch.
        cuda_graph: whether a GPU may repeat a recording of how gradients are computed.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        team: Team = ALONE,
        cuda_graph: bool = True,
    ):
        self.settings, self.device, self.team = settings, device, team
        model = new_model(settings)
        model.load_state_dict(team.from_first(model.state_dict()))  # however they were drawn
        self.model = model.to(device)
        self.optimizer = Adam(self.model.parameters(), lr=settings.lr, fused=True)
        self.step = 0
        self.recording = None
        if cuda_graph and device.type == "cuda":
            self.recording = Recorded(self.differentiate, self.model)

    def take_step(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Move the model one step down its loss.

        Nothing here waits for the device, but for the steps at which a recording is checked.

        Args:
            images: (n, 784) uint8, a batch, or this process's share of it.

        Returns:
            the loss, a scalar, and NELBO, KL and REC (3,), of the batch before the step.
        """
        factor = SCHEDULES[self.settings.lr_schedule](self.step, self.settings.iter_max)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
        # Whatever PyTorch draws in a step, and however, is a function of (run, step) and process.
        seed = seeds.seed_for(self.settings.run, seeds.STEP, self.step, self.team.rank)
        reseed = partial(seeds.seed_all, seed, self.device)
        if self.recording:
            logged = self.recording(images, reseed)
        else:
            reseed()
            logged = self.differentiate(images)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.team.average([logged, *gradients])
        self.optimizer.step()
        self.step += 1
        return logged[0], logged[1:]

    def differentiate(self, images: Tensor) -> Tensor:
        """Give the parameters the gradients of the loss on a batch.

        Returns:
            loss, NELBO, KL and REC of the batch, (4,).
        """
        self.optimizer.zero_grad()  # first, so that what follows is computed in the memory it frees
        loss, summaries = self.model.loss(binarize(images))
        if self.settings.kl_weight != 1:  # as in the beta-VAE: Higgins et al. 2017, equation 4
            loss = loss + (self.settings.kl_weight - 1) * self._kl(summaries)
        loss.backward()
        bounds = -summaries["gen/elbo"], summaries["gen/kl_z"], summaries["gen/rec"]
        return torch.stack([loss, *bounds]).detach()

    def _kl(self, summaries: dict[str, Tensor]) -> Tensor:
        """The KL of a loss, through which gradients have to pass; any other is a UserError."""
        cost = summaries["gen/kl_z"]
        if not isinstance(cost, Tensor) or not cost.requires_grad:
            reason = "the gen/kl_z that loss of codebase.models.vae gives is cut off from the model"
            raise UserError(f"argument --kl_weight: {reason}; give it as it is, not detached", 2)
        return cost

    def state_dict(self) -> dict[str, Any]:
        """All that a step changes."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():  # which goes by order, not by name
            if any(x.shape not in ((), parameter.shape) for x in kept.values()):
                raise ValueError("the optimizer's averages are of other parameters")
        self.step = state["step"]


def train(
    settings: Settings,
    images: Images,
    device: torch.device | str,
    *,
    iter_save: int = 10_000,
    resume: bool = False,
    team: Team = ALONE,
    cuda_graph: bool = True,
    seconds_between_states: float = 60,
) -> VAE:
    """Train the run's model for `iter_max` steps, saving it every `iter_save` steps and at the end.

    Beside the models, `training-state.pt` is kept up to date for resuming, and `metrics.csv` with
    the bounds on the way. An earlier run of the same name is moved aside, unless `resume` goes on
    with it.

    Raises:
        UserError: the images are fewer than a batch, the processes of the team cannot share one
            evenly, a recorded loss has changed, or the training has diverged; or as
            `Keeper.keeping`.
    """
    device, size = torch.device(device), settings.batch_size
    if size > len(images.train):
        most = f"there are {len(images.train)} images to train on"
        raise UserError(f"--batch_size {size} is too large: {most}")
    if size % team.size:
        advice = f"choose a multiple of {team.size}"
        raise UserError(f"{team.size} processes cannot share --batch_size {size} evenly; {advice}")
    training = Training(settings, device, team, cuda_graph)
    keeper = Keeper(training, images, iter_save, seconds_between_states)
    with keeper.keeping(resume), seeds.seeded(settings.run, device):  # to leave it as it was
        pixels = images.train.to(device)
        rows = batch_rows(len(pixels), size, settings.run, device, training.step)
        while training.step < settings.iter_max:
            share = pixels.index_select(0, team.share(next(rows)))
            keeper.after_step(*training.take_step(share))
    return training.model
