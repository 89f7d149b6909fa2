"""The images: MNIST or the synthetic digits, and the report's way of turning them into bits."""

import hashlib
import http.client
import io
import os
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codebase import synthetic
from codebase.errors import DataError, DownloadError
from codebase.files import write_atomically
from codebase.signals import leaving_at_once

DATASETS = ("auto", "mnist", "synthetic")

# The four files of MNIST, their MD5 sums and the bytes of their headers.
MNIST_FILES = {
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", 16),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", 8),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", 16),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", 8),
}

# The report's 100 test images: row c holds positions among the test images of digit c.
REPORT_POSITIONS = (
    (684, 559, 629, 192, 835, 763, 707, 359, 9, 723),
    (277, 599, 1094, 600, 314, 705, 551, 87, 174, 849),
    (537, 845, 72, 777, 115, 976, 755, 448, 850, 99),
    (984, 177, 755, 797, 659, 147, 910, 423, 288, 961),
    (265, 697, 639, 544, 543, 714, 244, 151, 675, 510),
    (459, 882, 183, 28, 802, 128, 128, 53, 550, 488),
    (756, 273, 335, 388, 617, 42, 442, 543, 888, 257),
    (57, 291, 779, 430, 91, 398, 611, 908, 633, 84),
    (203, 324, 774, 964, 47, 639, 131, 972, 868, 180),
    (1000, 846, 143, 660, 227, 954, 791, 719, 909, 373),
)


class Images(NamedTuple):
    """A data set: images (n, 784) uint8 and labels (n,) uint8, for training and for testing."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load(dataset: str, data_dir: Path) -> Images:
    """Load the data set of one of the names in DATASETS from below `data_dir`, on the CPU.

    "auto" is MNIST where it can be had, else the synthetic digits and a warning on standard error.

    Raises:
        DataError: a file is damaged, or MNIST was asked for and cannot be downloaded.
        OSError: `data_dir` cannot be read or written.
    """
    if dataset == "synthetic":
        return load_synthetic(data_dir)
    try:
        return load_mnist(data_dir)
    except DownloadError as error:
        if dataset == "mnist":
            raise
        print(
            "Warning: using the synthetic digits, whose bounds cannot be compared with MNIST's: "
            f"{error}",
            file=sys.stderr,
        )
        return load_synthetic(data_dir)


def load_mnist(data_dir: Path) -> Images:
    """Load MNIST from where torchvision keeps it below `data_dir`, downloading it when absent.

    Raises:
        DownloadError: it is absent and cannot be downloaded.
        DataError: a file is not MNIST's, by its MD5 sum.
    """
    folder = data_dir / "MNIST" / "raw"
    if not all((folder / name).exists() for name in MNIST_FILES):
        _download_mnist(data_dir, folder)
    return Images("mnist", *(_read_mnist(folder / name) for name in MNIST_FILES))


def _read_mnist(path: Path) -> Tensor:
    """One of the four files, checked, as (n, 784) or (n,) uint8."""
    md5, header = MNIST_FILES[path.name]
    content = bytearray(path.read_bytes())
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(
            f"{path} is damaged or not MNIST's (its MD5 sum is not {md5}); "
            "delete it, and it is downloaded again"
        )
    values = torch.frombuffer(content, dtype=torch.uint8, offset=header)
    return values.view(-1, 28 * 28) if "images" in path.name else values


def _download_mnist(data_dir: Path, folder: Path) -> None:
    """Download the four files through torchvision and move them to `folder` once all are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    try:
        with leaving_at_once():
            import torchvision  # slow, and only needed here
        # torchvision sets no limit: behind a silent firewall it would wait for minutes.
        socket.setdefaulttimeout(20)
        # In a folder of its own, so that a download that fails leaves nothing behind.
        with (
            tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch,
            redirect_stdout(sys.stderr),
        ):
            torchvision.datasets.MNIST(scratch, download=True)
            for name in MNIST_FILES:
                os.replace(Path(scratch, "MNIST", "raw", name), folder / name)
    except (ImportError, RuntimeError, OSError, http.client.HTTPException) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[-1].strip("<>")
        raise DownloadError(
            f"MNIST is not in {folder} and could not be downloaded ({reason}); put its four "
            f"uncompressed files there ({', '.join(MNIST_FILES)}), or use --dataset synthetic"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def load_synthetic(data_dir: Path) -> Images:
    """Load the synthetic digits, drawing them and keeping them below `data_dir` when absent."""
    path = data_dir / "synthetic" / "digits-v1.npz"
    try:
        return _read_synthetic(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a damaged archive raises: it can be drawn again
        print(f"{path} is damaged ({error}).", file=sys.stderr)
    print(f"Drawing the synthetic digits, which are kept in {path}", file=sys.stderr)
    generator = torch.Generator().manual_seed(0)
    train, train_labels = synthetic.draw_digits(synthetic.TRAIN_COUNTS, generator)
    test, test_labels = synthetic.draw_digits(synthetic.TEST_COUNTS, generator)
    images = Images("synthetic", train, train_labels, test, test_labels)
    archive = io.BytesIO()
    np.savez(
        archive, **{field: x.numpy() for field, x in images._asdict().items() if field != "name"}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, archive.getvalue())
    return images


def _read_synthetic(path: Path) -> Images:
    """The synthetic digits from their archive, which checks itself by CRC."""
    with np.load(path) as archive:
        tensors = [torch.from_numpy(archive[field]) for field in Images._fields[1:]]
    shapes = [tuple(x.shape) for x in tensors]
    if shapes != [(60000, 784), (60000,), (10000, 784), (10000,)]:
        raise ValueError(f"shapes {shapes}")
    return Images("synthetic", *tensors)


def report_rows(test_labels: Tensor) -> Tensor:
    """Row numbers of the report's 100 test images, ten of each digit, (100,) int64."""
    return torch.cat(
        [
            (test_labels == digit).nonzero().squeeze(1)[list(positions)]
            for digit, positions in enumerate(REPORT_POSITIONS)
        ]
    )


def binarize(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw every pixel from Bernoulli(value / 255).

    Args:
        images: (..., 784) uint8.
        generator: the source of randomness, on the device of the images.

    Returns:
        (..., 784) float32, zeros and ones.
    """
    # In whole numbers, which is exact and faster: `value` of the 255 possible levels are below it.
    level = torch.empty_like(images).random_(0, 255, generator=generator)
    return level.lt_(images).float()  # in place, since bytes become floats faster than booleans do
