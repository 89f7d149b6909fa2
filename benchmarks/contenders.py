"""The training loops that are timed: iterators that take one training step per item."""

from collections.abc import Iterator
from itertools import chain, repeat

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from codebase.compute.threads import training_step
from codebase.data import Images, batch_indices
from codebase.settings import Settings
from codebase.train import Training, new_model


class ImageDataset(Dataset):
    """Images that are converted one by one on access, as torchvision.datasets.MNIST does it."""

    def __init__(self, images: Tensor):
        self.images = images.view(-1, 28, 28)
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.images[index].numpy()))


def conventional(images: Images, device: torch.device) -> Iterator[None]:
    """The loop as most people write it: a loader, plain Adam, and the loss read at every step."""
    model = new_model(Settings()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset = ImageDataset(images.train)
    loader = DataLoader(dataset, batch_size=100, shuffle=True)
    for x in chain.from_iterable(repeat(loader)):
        x = torch.bernoulli(x.to(device).reshape(len(x), -1))
        optimizer.zero_grad()
        loss, _ = model.loss(x)
        loss.backward()
        optimizer.step()
        loss.item()
        yield


def project(
    images: Tensor, device: torch.device, settings: Settings, cuda_graph: bool = True
) -> Iterator[None]:
    """The loop of this project."""
    training = Training(settings, device, cuda_graph=cuda_graph)
    images = images.to(device)
    with training_step(training, images[: settings.batch_size]) as take_step:
        for indices in batch_indices(len(images), settings.batch_size, settings.run, device):
            take_step(images.index_select(0, indices))
            yield


def products(images: Tensor, device: torch.device) -> Iterator[None]:
    """The matrix products of a step and nothing else, written into memory allocated before."""
    model = new_model(Settings()).to(device)
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, torch.nn.Linear)]
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
            if i:  # The gradient of the images is not needed.
                torch.mm(e, w, out=input_gradient)
        yield
