"""Loading a data set: its files are found or downloaded, and checked; or its digits are drawn."""

import hashlib
import http.client
import io
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from codebase.data import DOWNLOADS, Images
from codebase.datasets import synthetic
from codebase.system.errors import DownloadError, UserError
from codebase.system.files import write_atomically

# The four files of a data set and the bytes of their headers.
FILES = {
    "train-images-idx3-ubyte": 16,
    "train-labels-idx1-ubyte": 8,
    "t10k-images-idx3-ubyte": 16,
    "t10k-labels-idx1-ubyte": 8,
}


def load(dataset: str, data_dir: Path) -> Images:
    """Load the data set of one of the names in DATASETS from below `data_dir`, on the CPU.

    "auto" is MNIST where it can be had, else the synthetic digits and a warning on standard error.

    Raises:
        UserError: a file is damaged, or the images are absent and cannot be downloaded.
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
        UserError: a file is not the data set's, by its MD5 sum.
    """
    kind, *sums = DOWNLOADS[dataset]
    folder = data_dir / kind / "raw"
    if not _complete(folder):
        _download(kind, folder)
    tensors = []
    for (name, header), md5 in zip(FILES.items(), sums, strict=True):
        content = bytearray((folder / name).read_bytes())
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise UserError(
                f"{folder / name} is damaged or not {kind}'s (its MD5 sum is not {md5}); "
                "delete it, and it is downloaded again"
            )
        values = torch.frombuffer(content, dtype=torch.uint8, offset=header)
        tensors.append(values.view(-1, 28 * 28) if "images" in name else values)
    return Images(dataset, *tensors)


def _complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def _download(kind: str, folder: Path) -> None:
    """Download the four files through torchvision and write them to `folder` once all are whole.

    One process at a time does so; the others find the files then.
    """
    timeout = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if _complete(folder):
                return
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
