"""What is timed side by side: iterators, each item of which is a training step that was taken."""

from collections.abc import Iterator
from itertools import chain, repeat

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from codebase.data import Images, batch_rows
from codebase.settings import Settings
from codebase.train import Training, new_model


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


def conventional(images: Images, device: torch.device) -> Iterator[None]:
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


def project(
    images: Tensor, device: torch.device, settings: Settings, cuda_graph: bool = True
) -> Iterator[None]:
    """The project's own steps."""
    training, images = Training(settings, device, cuda_graph=cuda_graph), images.to(device)
    for rows in batch_rows(len(images), settings.batch_size, settings.run, device):
        training.take_step(images.index_select(0, rows))
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
