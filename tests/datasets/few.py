"""A few random images in the formats of the data sets: as files, and as a download."""

import gzip
import hashlib
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import OFFLINE
from torch import Tensor

from codebase.data import Images
from codebase.datasets.sources import SOURCES

# Images and labels for training and for testing.
FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
NEEDED = (FILES[0], *FILES[2:])


def idx(values: Tensor) -> bytes:
    """A tensor of bytes or of int32 as a file in the IDX format."""
    kind, letter = (8, "B") if values.dtype == torch.uint8 else (12, "i")
    header = struct.pack(f">HBB{values.dim()}I", 0, kind, values.dim(), *values.shape)
    return header + struct.pack(f">{values.numel()}{letter}", *values.flatten().tolist())


def random_images(*sizes: int, classes: int = 10) -> list[Tensor]:
    """Images and labels for training and for testing, in the order of FILES."""
    images = [torch.randint(256, (n, 28, 28), dtype=torch.uint8) for n in sizes]
    labels = [(torch.arange(n) % classes).byte() for n in sizes]
    return [images[0], labels[0], images[1], labels[1]]


def write(folder: Path, tensors: list[Tensor], names: Iterable[str] = FILES) -> None:
    """Write tensors into files, which are packed if their names end in .gz."""
    for name, values in zip(names, tensors, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = idx(values)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def are(images: Images, tensors: list[Tensor]) -> bool:
    """Whether a data set has these images, and these labels of the test images."""
    train, _, test, labels = tensors
    same = torch.equal(images.train, train.flatten(1)) and torch.equal(images.test, test.flatten(1))
    return same and images.test_labels.tolist() == labels.tolist()


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A few images whose MD5 sums count as those of MNIST, and no network."""
    tensors = random_images(5, 3)
    pairs = zip(FILES, tensors, strict=True)
    sums = {name: hashlib.md5(idx(x)).hexdigest() for name, x in pairs if name in NEEDED}
    monkeypatch.setitem(SOURCES, "mnist", SOURCES["mnist"]._replace(md5=sums))
    for name, nowhere in OFFLINE.items():
        monkeypatch.setenv(name, nowhere)
    return tensors


@pytest.fixture
def raw(few, tmp_path):
    """The folder of torchvision's downloads, with the few images."""
    write(tmp_path / "MNIST" / "raw", few)
    return tmp_path / "MNIST" / "raw"


@pytest.fixture
def downloading(monkeypatch):
    """Replaces torchvision's download by an action on the folder, and at first refuses to."""

    def replace(action, class_name="MNIST"):
        def dataset(root, train, download, **options):
            folder = Path(root, class_name, "raw")
            folder.mkdir(parents=True, exist_ok=True)
            action(folder)

        datasets = SimpleNamespace(**{class_name: dataset})
        monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=datasets))

    replace(lambda folder: pytest.fail("a download was started"))
    return replace


def no_route(folder: Path) -> None:
    """A download that fails."""
    raise OSError("no route")
