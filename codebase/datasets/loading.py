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

from codebase.data import DATASETS, DOWNLOADS, Images
from codebase.datasets import synthetic
from codebase.system.errors import DownloadError, UserError
from codebase.system.files import lock, write_atomically

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
    files, wrong = _find(dataset, data_dir)
    if len(files) < len(FILES):
        _download(dataset, data_dir, wrong)
        files, _ = _find(dataset, data_dir)
    tensors = []
    for (name, content), header in zip(files.items(), FILES.values(), strict=True):
        values = torch.frombuffer(content, dtype=torch.uint8, offset=header)
        tensors.append(values.view(-1, 28 * 28) if "images" in name else values)
    return Images(dataset, *tensors)


def _find(dataset: str, data_dir: Path) -> tuple[dict[str, bytearray], str]:
    """The content of those of the four files that are there, and what is wrong with another one.

    Where torchvision keeps them a wrong file is a UserError. In the folders where people put them,
    it may as well be another data set's.
    """
    kind, *sums = DOWNLOADS[dataset]
    own, others = (data_dir / kind / "raw", data_dir / kind), (data_dir / "raw", data_dir)
    files, wrong, wrong_own = dict[str, bytearray](), "", dict[str, str]()
    for name, md5 in zip(FILES, sums, strict=True):
        # Some sites have a dot in the names, or a folder of the same name around each file.
        names = (name, name.replace("-idx", ".idx"))
        paths = [f / n for f in (*own, *others) for m in names for n in (m, f"{m}/{m}", f"{m}.gz")]
        for path in filter(Path.is_file, paths):
            content = bytearray(_read(path))
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if found == md5:
                files[name] = content
                break
            reason = f"its MD5 sum is {found}, and not {md5} as in DOWNLOADS of codebase/data.py"
            wrong = f"{path} is damaged or not {kind}'s {name} ({reason})"
            if any(folder in path.parents for folder in own):
                wrong_own.setdefault(name, wrong)
    refused = [reason for name, reason in wrong_own.items() if name not in files]
    if refused and len(files) + len(refused) == len(FILES):  # else all are downloaded anew
        raise UserError(f"{refused[0]}; delete it, and it is downloaded again")
    return files, wrong


def _read(path: Path) -> bytes:
    """The content of a file, unpacked if it is packed; what cannot be unpacked as it is."""
    content = path.read_bytes()
    with suppress(OSError, EOFError, zlib.error):
        return gzip.decompress(content) if path.suffix == ".gz" else content
    return content


def _download(dataset: str, data_dir: Path, wrong: str) -> None:
    """Download the four files through torchvision, and keep them once all are whole.

    One process at a time does so; the others find the files then.

    Args:
        wrong: what to say of a file that is there, if they cannot be downloaded.
    """
    kind, timeout = DOWNLOADS[dataset][0], socket.getdefaulttimeout()
    folder = data_dir / kind / "raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / ".lock", -1):
            if len(_find(dataset, data_dir)[0]) == len(FILES):
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
            f"{wrong and wrong + '; '}"
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
