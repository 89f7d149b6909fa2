"""The images: MNIST or the synthetic digits, and how they are turned into bits."""

import hashlib
import http.client
import io
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codebase import synthetic
from codebase.errors import DataError, DownloadError
from codebase.files import write_atomically
from codebase.seeds import ORDER, seed_for

# The data sets that torchvision downloads: its class, which is also the name of its folder, and the
# MD5 sums of the four files. Another one of MNIST's shape needs an entry here and nothing else.
DOWNLOADS = {
    "mnist": (
        "MNIST",
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
}
DATASETS = ("auto", *DOWNLOADS, "synthetic")

# The four files of a data set and the bytes of their headers.
FILES = {
    "train-images-idx3-ubyte": 16,
    "train-labels-idx1-ubyte": 8,
    "t10k-images-idx3-ubyte": 16,
    "t10k-labels-idx1-ubyte": 8,
}

# The assignment's 100 test images: row c holds positions among the test images of digit c.
SUBSET_POSITIONS = (
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
        DataError: a file is damaged, or the images are absent and cannot be downloaded.
        OSError: `data_dir` cannot be read or written.
    """
    if dataset == "synthetic":
        return load_synthetic(data_dir)
    try:
        return load_downloaded("mnist" if dataset == "auto" else dataset, data_dir)
    except DownloadError as error:
        if dataset != "auto":
            raise
        print(
            "Warning: using the synthetic digits, whose bounds cannot be compared with MNIST's: "
            f"{error}",
            file=sys.stderr,
        )
        return load_synthetic(data_dir)


def load_downloaded(dataset: str, data_dir: Path) -> Images:
    """Load a data set from where torchvision keeps it below `data_dir`, downloading it when absent.

    Raises:
        DownloadError: it is absent and cannot be downloaded.
        DataError: a file is not the data set's, by its MD5 sum.
    """
    kind, *sums = DOWNLOADS[dataset]
    folder = data_dir / kind / "raw"
    if not all((folder / name).exists() for name in FILES):
        _download(kind, folder)
    tensors = []
    for (name, header), md5 in zip(FILES.items(), sums, strict=True):
        content = bytearray((folder / name).read_bytes())
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise DataError(
                f"{folder / name} is damaged or not {kind}'s (its MD5 sum is not {md5}); "
                "delete it, and it is downloaded again"
            )
        values = torch.frombuffer(content, dtype=torch.uint8, offset=header)
        tensors.append(values.view(-1, 28 * 28) if "images" in name else values)
    return Images(dataset, *tensors)


def _download(kind: str, folder: Path) -> None:
    """Download the four files through torchvision and write them to `folder` once all are whole."""
    timeout = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import torchvision  # slow, and only needed here

        # torchvision sets no limit: behind a silent firewall it would wait for minutes.
        socket.setdefaulttimeout(20)
        # In a folder of its own, so that a download that fails leaves nothing behind.
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, kind)(scratch, download=True)
            for name in FILES:
                write_atomically(folder / name, Path(scratch, kind, "raw", name).read_bytes())
    except (ImportError, RuntimeError, OSError, http.client.HTTPException) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[-1].strip("<>")
        raise DownloadError(
            f"{kind} is not in {folder} and could not be downloaded ({reason}); put its four "
            f"uncompressed files there ({', '.join(FILES)}), or use --dataset synthetic"
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
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"Drawing the synthetic digits, which are kept in {path}", file=sys.stderr)
    generator = torch.Generator().manual_seed(0)
    train, train_labels = synthetic.draw_digits(synthetic.TRAIN_COUNTS, generator)
    test, test_labels = synthetic.draw_digits(synthetic.TEST_COUNTS, generator)
    images = Images("synthetic", train, train_labels, test, test_labels)
    archive = io.BytesIO()
    np.savez(
        archive, **{field: x.numpy() for field, x in images._asdict().items() if field != "name"}
    )
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


def subset_rows(test_labels: Tensor) -> Tensor:
    """Row numbers of the assignment's 100 test images, ten of each digit, (100,) int64."""
    rows = []
    for digit, positions in enumerate(SUBSET_POSITIONS):
        of_digit = (test_labels == digit).nonzero().squeeze(1)
        # In another data set there may be fewer images of a digit; then it starts over.
        rows.append(of_digit[torch.tensor(positions) % len(of_digit)])
    return torch.cat(rows)


def batches(
    n: int, batch_size: int, run: int, device: torch.device, step: int = 0
) -> Iterator[Tensor]:
    """Row numbers (batch_size,) of one batch after the other from `step` on, without end.

    Within an epoch no image comes twice. An epoch's order is a function of (run, epoch) alone.
    """
    first, done = divmod(step, n // batch_size)
    for epoch in count(first):
        generator = torch.Generator().manual_seed(seed_for(run, ORDER, epoch))
        order = torch.randperm(n, generator=generator).to(device)
        yield from order[: n - n % batch_size].split(batch_size)[done:]
        done = 0


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
