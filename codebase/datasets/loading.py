"""Loading a data set: its files are found or downloaded, and checked; or its digits are drawn."""

import gzip
import hashlib
import http.client
import socket
import sys
import tempfile
import zlib
from contextlib import redirect_stdout, suppress
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
    """Load a data set from below `data_dir`, downloading it when one of its files is absent.

    Raises:
        DownloadError: it is absent and cannot be downloaded.
        UserError: a file is not the data set's, by its MD5 sum.
    """
    kind, *sums = DOWNLOADS[dataset]
    files = _find(kind, data_dir)
    if len(files) < len(FILES):
        _download(kind, data_dir)
        files = _find(kind, data_dir)
    tensors = []
    for (name, path), header, md5 in zip(files.items(), FILES.values(), sums, strict=True):
        content = bytearray(_read(path))
        if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
            reason = f"its MD5 sum is {found}, and not {md5} as in DOWNLOADS of codebase/data.py"
            advice = "delete it, and it is downloaded again"
            raise UserError(f"{path} is damaged or not {kind}'s {name} ({reason}); {advice}")
        values = torch.frombuffer(content, dtype=torch.uint8, offset=header)
        tensors.append(values.view(-1, 28 * 28) if "images" in name else values)
    return Images(dataset, *tensors)


def _find(kind: str, data_dir: Path) -> dict[str, Path]:
    """Those of the four files that are there, where torchvision keeps them or people put them."""
    folders = (data_dir / kind / "raw", data_dir / kind, data_dir / "raw", data_dir)
    found = {}
    for name in FILES:
        # Some sites have a dot in the names, or a folder of the same name around each file.
        names = (name, name.replace("-idx", ".idx"))
        paths = (f / n for f in folders for m in names for n in (m, f"{m}/{m}", f"{m}.gz"))
        if path := next((path for path in paths if path.is_file()), None):
            found[name] = path
    return found


def _read(path: Path) -> bytes:
    """The content of a file, unpacked if it is packed; what cannot be unpacked as it is."""
    content = path.read_bytes()
    with suppress(OSError, EOFError, zlib.error):
        return gzip.decompress(content) if path.suffix == ".gz" else content
    return content


def _download(kind: str, data_dir: Path) -> None:
    """Download the four files through torchvision, and keep them once all are whole.

    One process at a time does so; the others find the files then.
    """
    folder, timeout = data_dir / kind / "raw", socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if len(_find(kind, data_dir)) == len(FILES):
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
            f"files there ({', '.join(FILES)}, packed or not), or use --dataset synthetic"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def load_synthetic() -> Images:
    """The synthetic digits, always the same ones. To draw them takes a second."""
    generator = torch.Generator().manual_seed(0)
    train = synthetic.draw(synthetic.TRAIN_COUNTS, generator)
    return Images("synthetic", *train, *synthetic.draw(synthetic.TEST_COUNTS, generator))
