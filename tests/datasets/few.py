"""A few random images with the MD5 sums of MNIST: as files, and as a download."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codebase.data import Images
from codebase.datasets.loading import DOWNLOADS

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(values: Tensor) -> bytes:
    """A tensor of bytes as a file in MNIST's format."""
    header = [0x800 + values.dim(), *values.shape]
    content = b"".join(number.to_bytes(4, "big") for number in header)
    return content + values.numpy().tobytes()


def random_images(*sizes: int) -> list[Tensor]:
    """Images and labels for training and for testing, in the order of FILES."""
    tensors = []
    for n in sizes:
        tensors.append(torch.randint(256, (n, 28, 28), dtype=torch.uint8))
        tensors.append((torch.arange(n) % 10).byte())
    return tensors


def add_data_set(
    monkeypatch: pytest.MonkeyPatch, name: str, class_name: str, tensors: list[Tensor]
) -> None:
    """Enter a data set with the MD5 sums of these images in the table DOWNLOADS."""
    sums = [hashlib.md5(idx(values)).hexdigest() for values in tensors]
    monkeypatch.setitem(DOWNLOADS, name, (class_name, *sums))
    names = ("auto", *DOWNLOADS, "synthetic")
    monkeypatch.setattr("codebase.datasets.loading.DATASETS", names)


def write(folder: Path, tensors: list[Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(FILES, tensors, strict=True):
        (folder / name).write_bytes(idx(values))


def replace_download(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[Path], object], class_name: str = "MNIST"
) -> None:
    """Replace torchvision's download by an action on the folder that it would download to."""
    import torchvision

    def download(self):
        os.makedirs(self.raw_folder)
        action(Path(self.raw_folder))

    monkeypatch.setattr(getattr(torchvision.datasets, class_name), "download", download)


def are(images: Images, tensors: list[Tensor]) -> bool:
    """Whether a data set has these images and labels."""
    flat = [x.flatten(1) if x.dim() > 1 else x for x in tensors]
    return all(map(torch.equal, astuple(images)[1:], flat))


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A few images whose MD5 sums count as those of MNIST."""
    tensors = random_images(5, 3)
    add_data_set(monkeypatch, "mnist", "MNIST", tensors)
    return tensors


@pytest.fixture
def raw(few, tmp_path):
    """The folder of torchvision's downloads, with the few images."""
    folder = tmp_path / "MNIST" / "raw"
    write(folder, few)
    return folder


@pytest.fixture
def downloading(monkeypatch):
    """Replaces the download."""
    return partial(replace_download, monkeypatch)


@pytest.fixture
def no_downloading(downloading):
    downloading(lambda folder: pytest.fail("a download was started"))
