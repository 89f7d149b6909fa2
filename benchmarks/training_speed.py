"""Time the training step beside the conventional loop and beside its matrix products alone."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from codebase import data, machine
from codebase.errors import UserError
from codebase.settings import Settings
from codebase.train import Training, new_model
from run_vae import Parser, whole_number

ROUNDS = 7
WARM_UP = 50


class ImageDataset(Dataset):
    """Images one by one, each converted when asked for, as torchvision.datasets.MNIST does it."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images.view(-1, 28, 28), labels
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        return self.transform(image), int(self.labels[index])


def conventional(images: data.Images, device: torch.device) -> Iterator[None]:
    """The loop as people write it: a loader, plain Adam, and the loss read at every step."""
    model = new_model(Settings()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset = ImageDataset(images.train, images.train_labels)
    loader = DataLoader(dataset, batch_size=100, shuffle=True)
    for x, _ in chain.from_iterable(repeat(loader)):
        x = torch.bernoulli(x.to(device).reshape(len(x), -1))
        optimizer.zero_grad()
        loss, _ = model.loss(x)
        loss.backward()
        optimizer.step()
        loss.item()
        yield


def project(images: Tensor, device: torch.device) -> Iterator[None]:
    """The project's own steps."""
    settings = Settings()
    training, pixels = Training(settings, device), images.to(device)
    for rows in data.batches(len(pixels), settings.batch_size, settings.run, device):
        training.take_step(pixels.index_select(0, rows))
        yield


def products(images: Tensor, device: torch.device) -> Iterator[None]:
    """The matrix products of a step and nothing else, into memory that is already there."""
    model = new_model(Settings()).to(device)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights = [module.weight.detach() for module in linear]
    inputs = [torch.randn(Settings().batch_size, w.shape[1], device=device) for w in weights]
    errors = [torch.randn(Settings().batch_size, w.shape[0], device=device) for w in weights]
    layers = list(zip(weights, inputs, errors, strict=True))
    results = [[torch.empty_like(x) for x in (e, w, i)] for w, i, e in layers]
    while True:
        for (w, x, _), (output, _, _) in zip(layers, results, strict=True):
            torch.mm(x, w.t(), out=output)
        for i in reversed(range(len(layers))):
            w, x, e = layers[i]
            _, weight_gradient, input_gradient = results[i]
            torch.mm(e.t(), x, out=weight_gradient)
            if i:  # nobody needs the gradient of the images
                torch.mm(e, w, out=input_gradient)
        yield


def milliseconds(steps: Iterator[None], count: int, wait: Callable[[], None]) -> float:
    """Wall time of one step, over `count` of them."""
    wait()
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    wait()
    return 1e3 * (time.perf_counter() - start) / count


def main() -> None:
    """Time the three in turn, several rounds, and print a table as Markdown."""
    parser = Parser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, count, threads = parser.add_argument, whole_number(1), torch.get_num_threads()
    add("--steps", type=count, default=200, metavar="N", help=f"in each of {ROUNDS} rounds")
    add("--threads", type=count, default=threads, metavar="N", help="on the CPU")
    add("--device", default="auto", help="as for run_vae.py")
    add("--dataset", choices=data.DATASETS, default="auto", help="as for run_vae.py")
    add("--data_dir", default="data", metavar="DIR", help="folder of the images")
    args = parser.parse_args()

    machine.prepare_processor(args.threads)
    try:
        device = machine.choose_device(args.device)
        images = data.load(args.dataset, Path(args.data_dir))
    except (UserError, OSError) as error:
        parser.error(str(error))
    wait = (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize
    contenders = {
        "conventional loop": conventional(images, device),
        "this project": project(images.train, device),
        "matrix products alone": products(images.train, device),
    }
    for steps in contenders.values():
        milliseconds(steps, WARM_UP, wait)
    times = {name: [] for name in contenders}
    for _ in range(ROUNDS):  # in turn, so that a machine's changes of speed meet all of them
        for name, steps in contenders.items():
            times[name].append(milliseconds(steps, args.steps, wait))

    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {images.name}, "
        f"{ROUNDS} rounds of {args.steps} steps\n"
    )
    print("| | ms a step: median | least to most | steps a second | times the conventional |")
    print("| --- | --- | --- | --- | --- |")
    for name, ms in times.items():
        median = statistics.median(ms)
        ratios = [a / b for a, b in zip(times["conventional loop"], ms, strict=True)]
        print(
            f"| {name} | {median:.2f} | {min(ms):.2f} to {max(ms):.2f} | {1e3 / median:.0f} "
            f"| {statistics.median(ratios):.2f} |"
        )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
