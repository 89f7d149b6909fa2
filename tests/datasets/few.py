"""A few random images that pass for MNIST: in files, and as what is downloaded."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codebase.data import DOWNLOADS, Images

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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A few images, in the order of the files, whose MD5 sums are taken for those of MNIST."""
    tensors = []
    for n in (5, 3):
        tensors.append(torch.randint(256, (n, 28, 28), dtype=torch.uint8))
        tensors.append(torch.randint(10, (n,), dtype=torch.uint8))
    sums = [hashlib.md5(idx(values)).hexdigest() for values in tensors]
    monkeypatch.setitem(DOWNLOADS, "mnist", ("MNIST", *sums))
    return tensors


def write(folder: Path, tensors: list[Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(FILES, tensors, strict=True):
        (folder / name).write_bytes(idx(values))


def have_download(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[Path], object], dataset: str = "MNIST"
) -> None:
    """Have torchvision's download do something else, given the folder that it downloads into."""
    import torchvision

    def download(self):
        os.makedirs(self.raw_folder)
        action(Path(self.raw_folder))

    monkeypatch.setattr(getattr(torchvision.datasets, dataset), "download", download)


def are(images: Images, tensors: list[Tensor]) -> bool:
    """Whether the images are these, in the order of the files."""
    flat = [x.flatten(1) if x.dim() > 1 else x for x in tensors]
    return all(map(torch.equal, images[1:], flat))


def files_below(folder: Path) -> list[str]:
    """The names of the files, without the lock, which is empty and stays."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


@pytest.fixture
def raw(few, tmp_path):
    """The folder of MNIST's files, with a few images in them."""
    folder = tmp_path / "MNIST" / "raw"
    write(folder, few)
    return folder


@pytest.fixture
def downloading(monkeypatch):
    """Have a download do something else."""
    return partial(have_download, monkeypatch)
