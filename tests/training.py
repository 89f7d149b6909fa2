"""What tests of training share: a small run, and ways to watch it, to end it and to compare it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from codebase import evaluate
from codebase.data import Images
from codebase.models import nns
from codebase.models.vae import VAE
from codebase.runs.folder import run_folder, state_path
from codebase.runs.metrics import METRICS, read_metrics
from codebase.settings import Settings
from codebase.system.errors import Interrupted
from codebase.train import load_trained, train

CPU = torch.device("cpu")
NETWORKS = str(Path(__file__).parent / "networks")
# Holds the folder that is its argument until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from codebase.runs.folder import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TINY = Settings(nn="tiny", z=2, batch_size=10, dataset="synthetic", iter_max=30)
FOLDER = run_folder(TINY)
STATE = state_path(FOLDER)


def draw_images() -> Images:
    """Ten shapes with noise: 20 batches of ten and half a one to train on, and 60 to test on."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(128, (10, 784), generator=generator)
    parts = []
    for number in (205, 60):
        labels = torch.arange(number) % 10
        noise = torch.randint(128, (number, 784), generator=generator)
        parts += [(shapes[labels] + noise).byte(), labels.byte()]
    return Images("synthetic", *parts)


IMAGES = draw_images()


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in an empty folder, where there are small networks, and measure with few passes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(evaluate, "SUBSET_PASSES", 2)
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])


def train_small(settings: Settings = TINY, **options) -> VAE:
    return train(settings, IMAGES, CPU, **options)


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


@contextmanager
def clock_of_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A clock on which a training step takes a second, or as many as its `step` says."""
    clock = SimpleNamespace(now=1000.0, step=1.0)

    def tick(*_):
        clock.now += clock.step

    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    with after_each_step(tick):
        yield clock


def interrupt(
    settings: Settings = TINY, after: int = 1, number: int = signal.SIGTERM, **options
) -> Interrupted:
    """Train until a signal comes, which is sent when so many steps have been taken."""
    with (
        after_each_step(lambda step, _: signal.raise_signal(number) if step == after else None),
        pytest.raises(Interrupted) as caught,
    ):
        train_small(settings, **options)
    return caught.value


def hold(start: Callable[..., Popen], folder: Path) -> Popen:
    """Have another process hold the folder as one that trains does, until its input ends."""
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    holder = start("-c", HOLDER, folder, stdin=PIPE, env=environment)
    assert holder.stdout.readline() == "held\n", holder.stderr.read()
    return holder


def files_in(folder: Path) -> dict[str, bytes]:
    """Path and content of all files in a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def results_in(folder: Path) -> dict[str, object]:
    """What two same runs have in common: the models, and the lines of metrics.csv but for times."""
    lines = (folder / METRICS).read_text().splitlines()
    models = {path.name: path.read_bytes() for path in folder.glob("model-*.pt")}
    return models | {METRICS: [line.rsplit(",", 1)[0] for line in lines]}


def bounds_in(folder: Path, images: str) -> dict[int, tuple[float, ...]]:
    """The bounds on these images in metrics.csv, by the step."""
    return {row.step: row.bounds for row in read_metrics(folder) if row.images == images}


def same_parameters(a: VAE, b: VAE) -> bool:
    return all(torch.equal(*pair) for pair in zip(a.parameters(), b.parameters(), strict=True))


def change_loss(monkeypatch: pytest.MonkeyPatch, to: Callable) -> None:
    """Have the model minimize something else, as a student does who edits `VAE.loss`."""
    plain = VAE.loss

    def loss(model, x):
        loss, summaries = plain(model, x)
        return to(loss, summaries["gen/kl_z"]), summaries

    monkeypatch.setattr(VAE, "loss", loss)
