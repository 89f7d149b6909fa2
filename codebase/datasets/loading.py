"""Loading a data set: its files are found or downloaded, and checked; or its digits are drawn."""

import hashlib
import http.client
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch
from filelock import FileLock

from codebase.data import DATASETS, DOWNLOADS, Images
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
        UserError: the name is unknown, a file is damaged, or the images are absent and cannot be
            downloaded.
        OSError: `data_dir` cannot be read or written.
    """
    if dataset not in DATASETS:
        choices = " or ".join(DATASETS)
        raise UserError(f"argument --dataset: must be {choices}, not {dataset!r}", 2)
    if dataset == "synthetic":
        return load_synthetic()
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
        return load_synthetic()


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


def load_synthetic() -> Images:
    """The synthetic digits, always the same ones. To draw them takes a second."""
    generator = torch.Generator().manual_seed(0)
    train = synthetic.draw(synthetic.TRAIN_COUNTS, generator)
    return Images("synthetic", *train, *synthetic.draw(synthetic.TEST_COUNTS, generator))
