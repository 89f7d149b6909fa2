"""A small run for tests of training, and ways to watch, interrupt and compare it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from codebase.data import Images
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings
from codebase.system.errors import Interrupted
from codebase.train import load_trained, train

CPU = torch.device("cpu")
TINY = Settings(nn="tiny", z=2, batch_size=10, dataset="synthetic", iter_max=30)
RUN = RunFolder(TINY)


def make_images() -> Images:
    """Ten shapes with noise: 205 images (20.5 batches) for training, and 60 for testing."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(128, (10, 784), generator=generator)
    parts = []
    for number in (205, 60):
        labels = torch.arange(number) % 10
        noise = torch.randint(128, (number, 784), generator=generator)
        parts.append((shapes[labels] + noise).byte())
    return Images("synthetic", *parts, labels.byte())


IMAGES = make_images()


def train_small(settings: Settings = TINY, **options) -> VAE:
    return train(settings, IMAGES, CPU, **options)[0]


def load_small(settings: Settings = TINY) -> VAE:
    return load_trained(settings, CPU)


@contextmanager
def after_each_step(act: Callable[[int, Optimizer], object]) -> Iterator[None]:
    """Call `act` with the number of steps taken inside the block, and with the optimizer."""
    steps = count(1)
    handle = register_optimizer_step_post_hook(lambda adam, *_: act(next(steps), adam))
    try:
        yield
    finally:
        handle.remove()


def signal_after(steps: int, number: int = signal.SIGTERM):
    """Raise a signal after so many steps inside the block."""
    return after_each_step(lambda step, _: step == steps and signal.raise_signal(number))


def interrupt(settings: Settings = TINY, after: int = 1, **options) -> Interrupted:
    """Train for `after` steps, raise a signal in the last of them, and return the exception."""
    with signal_after(after), pytest.raises(Interrupted) as caught:
        train_small(settings, **options)
    return caught.value


def files_in(folder: Path) -> dict[str, bytes]:
    """Path and content of all files in a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def results_in(folder: Path) -> dict[str, object]:
    """All that two equal runs have in common: the models, and metrics.csv without the seconds."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    models = {path.name: path.read_bytes() for path in folder.glob("model-*.pt")}
    return models | {"metrics.csv": [line.rsplit(",", 1)[0] for line in lines]}


def uninterrupted(settings: Settings = TINY, **options) -> dict[str, object]:
    """The results of a run without an interruption, whose folder is removed from its place."""
    train_small(settings, **options)
    return results_in(RunFolder(settings).path.rename("uninterrupted"))


def state_step(folder: RunFolder = RUN) -> int:
    """The step of the training state, 0 without one."""
    return checkpoint.load(folder.state)["training"]["step"] if folder.state.exists() else 0


def bounds_in(images: str, folder: RunFolder = RUN) -> dict[int, tuple[float, ...]]:
    """NELBO, KL and REC on these images in metrics.csv, by the step."""
    return {row.step: row.bounds[:3] for row in read_metrics(folder) if row.images == images}


def same_parameters(a: VAE, b: VAE) -> bool:
    return all(torch.equal(*pair) for pair in zip(a.parameters(), b.parameters(), strict=True))


def change_loss(monkeypatch: pytest.MonkeyPatch, to: Callable) -> None:
    """Replace the loss by `to(loss, KL)`, as a student may who edits `VAE.loss`."""
    plain = VAE.loss

    def loss(model, x):
        loss, summaries = plain(model, x)
        return to(loss, summaries["gen/kl_z"]), summaries

    monkeypatch.setattr(VAE, "loss", loss)
