"""Finding, downloading and checking the files of a data set."""

import gzip
import hashlib
import http.client
import re
import socket
import sys
import tempfile
import zlib
from contextlib import redirect_stdout, suppress
from pathlib import Path

import torch

from codebase.data import Images
from codebase.datasets import synthetic
from codebase.system.errors import DownloadError, UserError
from codebase.system.files import write_atomically

# The data sets that torchvision downloads: its class, also the name of its folder, and the MD5 sums
# of the four files. Another data set of MNIST's shape only needs an entry here.
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
# The four files of a data set, and the sizes of their headers in bytes.
FILES = {
    "train-images-idx3-ubyte": 16,
    "train-labels-idx1-ubyte": 8,
    "t10k-images-idx3-ubyte": 16,
    "t10k-labels-idx1-ubyte": 8,
}


def resolve(dataset: str, data_dir: Path) -> str:
    """The name of the data set to load, once its files are there.

    "auto" is MNIST if it can be found or downloaded, else the synthetic digits.
    """
    if dataset not in DATASETS:
        choices = " or ".join(DATASETS)
        raise UserError(f"argument --dataset: must be {choices}, not {dataset!r}", 2)
    name = "mnist" if dataset == "auto" else dataset
    if name == "synthetic":
        return name
    try:
        find_or_download(name, data_dir)
        return name
    except DownloadError as error:
        if dataset != "auto":
            raise
        warning = "training on synthetic digits, whose bounds are not comparable with MNIST's"
        print(f"Warning: {warning}: {error}", file=sys.stderr)
        return "synthetic"


def load(dataset: str, data_dir: Path) -> Images:
    """Load one of DATASETS from below `data_dir`, on the CPU; raise UserError if that fails."""
    # The files of a name in DOWNLOADS are looked for below, and need not be read twice.
    name = dataset if dataset in DOWNLOADS else resolve(dataset, data_dir)
    if name == "synthetic":
        generator = torch.Generator().manual_seed(0)
        train = synthetic.make(synthetic.TRAIN_COUNTS, generator)
        return Images(name, *train, *synthetic.make(synthetic.TEST_COUNTS, generator))
    contents = find_or_download(name, data_dir)
    tensors = []
    for file, header in FILES.items():
        values = torch.frombuffer(contents[file], dtype=torch.uint8, offset=header)
        tensors.append(values.view(-1, 28 * 28) if "images" in file else values)
    return Images(name, *tensors)


def find_or_download(dataset: str, data_dir: Path) -> dict[str, bytearray]:
    """The contents of the four files, unpacked. Downloads them if one is absent.

    Raises DownloadError if that fails, and UserError if a wrong file is in the download's place.
    """
    place = data_dir / DOWNLOADS[dataset][0] / "raw"
    contents, wrong = _find(dataset, data_dir)
    if len(contents) < len(FILES) and not any(path.parent == place for path in wrong):
        try:
            _download(dataset, place)
        except (ImportError, RuntimeError, OSError, http.client.HTTPException) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[-1].strip("<>")
            name = DOWNLOADS[dataset][0]
            absent = f"{name} is not in {place} and could not be downloaded ({reason})"
            advice = f"put its four files there ({', '.join(FILES)}), or use --dataset synthetic"
            if wrong:  # perhaps a damaged file, so "auto" does not replace it by synthetic digits
                raise UserError(f"{next(iter(wrong.values()))}; {absent}; {advice}") from error
            raise DownloadError(f"{absent}; {advice}") from error
        contents, wrong = _find(dataset, data_dir)
    if len(contents) < len(FILES):
        reason = next(reason for path, reason in wrong.items() if path.parent == place)
        raise UserError(f"{reason}; delete it, and it will be downloaded again")
    return contents


def _find(dataset: str, data_dir: Path) -> tuple[dict[str, bytearray], dict[Path, str]]:
    """Search `data_dir`, at most three folders deep, for the four files by name and MD5 sum.

    A name may have a dot before "idx", and the ending .gz of a packed file. Returns the contents of
    the files that were found, and a sentence for each file with a wrong MD5 sum.
    """
    paths = [path for n in range(4) for path in sorted(data_dir.glob("*/" * n + "*-ubyte*"))]
    contents: dict[str, bytearray] = {}
    wrong: dict[Path, str] = {}
    for name, md5 in zip(FILES, DOWNLOADS[dataset][1:], strict=True):
        pattern = name.replace("-idx", "[-.]idx") + r"(\.gz)?"
        for path in paths:
            if name not in contents and re.fullmatch(pattern, path.name) and path.is_file():
                content = bytearray(path.read_bytes())
                if path.suffix == ".gz":
                    with suppress(OSError, EOFError, zlib.error):  # damaged, as its MD5 sum shows
                        content = bytearray(gzip.decompress(content))
                found = hashlib.md5(content, usedforsecurity=False).hexdigest()
                if found == md5:
                    contents[name] = content
                else:
                    reason = f"its MD5 sum is {found} and not {md5}"
                    wrong[path] = f"{path} is damaged or from another data set ({reason})"
    return contents, wrong


def _download(dataset: str, place: Path) -> None:
    """Download the four files through torchvision, and keep them once all are complete."""
    import torchvision  # slow, and only needed here

    class_name, timeout = DOWNLOADS[dataset][0], socket.getdefaulttimeout()
    # torchvision sets no time limit, and would wait for minutes behind a silent firewall.
    socket.setdefaulttimeout(20)
    try:
        # A failed download leaves nothing behind.
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, class_name)(scratch, download=True)
            place.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                content = Path(scratch, class_name, "raw", name).read_bytes()
                write_atomically(place / name, content)
    finally:
        socket.setdefaulttimeout(timeout)
