"""Finding, downloading and checking the files of a data set."""

import hashlib
import http.client
import re
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor

from codebase.data import Images
from codebase.datasets import reading, synthetic
from codebase.datasets.reading import WrongFileError
from codebase.datasets.sources import SOURCES, Source
from codebase.system.errors import DownloadError, UserError
from codebase.system.files import write_atomically


def resolve(dataset: str, data_dir: Path) -> str:
    """The name of the data set to load, once its files are there.

    "auto" is MNIST if it can be found or downloaded, else the synthetic digits.
    """
    name = dataset.lower()
    choices = ("auto", *SOURCES, "synthetic")
    if name not in choices:
        raise UserError(f"argument --dataset: must be {' or '.join(choices)}, not {dataset!r}", 2)
    if name == "synthetic":
        return name
    try:
        find_or_download("mnist" if name == "auto" else name, data_dir)
        return "mnist" if name == "auto" else name
    except DownloadError:
        if name != "auto":
            raise
        absent = f"MNIST is not in {data_dir} and could not be downloaded (no network?)"
        instead = "Using synthetic digits instead; their bounds are not comparable with MNIST's"
        advice = "If you have MNIST, give its folder with --data_dir"
        print(f"Warning: {absent}. {instead}. {advice}.", file=sys.stderr)
        return "synthetic"


def load(dataset: str, data_dir: Path | str = "data") -> Images:
    """Load a data set from below `data_dir`, on the CPU; raise UserError if that fails."""
    data_dir = Path(data_dir)
    # The files of a name in SOURCES are looked for below, and need not be read twice.
    name = dataset if dataset in SOURCES else resolve(dataset, data_dir)
    if name == "synthetic":
        generator = torch.Generator().manual_seed(0)
        train, _ = synthetic.make(synthetic.TRAIN_COUNTS, generator)
        return Images(name, train, *synthetic.make(synthetic.TEST_COUNTS, generator))
    source, found = SOURCES[name], find_or_download(name, data_dir)
    train = torch.cat([found[file] for file in source.train])
    labels = found.get(source.labels, torch.empty(0, dtype=torch.int64))
    return Images(name, train, found[source.test], labels)


def find_or_download(dataset: str, data_dir: Path) -> dict[str, Tensor]:
    """The contents of the files of a data set, by name. Downloads them if one is absent.

    Raises DownloadError if that fails, and UserError if a wrong file is in the download's place.
    """
    source = SOURCES[dataset]
    place = data_dir / source.folder / "raw"
    found, wrong = _find(source, data_dir)
    if len(found) < len(source.files) and not any(path.parent == place for path in wrong):
        try:
            _download(source, place)
        except (ImportError, RuntimeError, OSError, http.client.HTTPException) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[-1].strip("<>")
            absent = f"{source.title} is not in {place} and could not be downloaded ({reason})"
            origin = f" from {source.origin}" if source.origin else ""
            files = f"{', '.join(source.files)}{origin}"
            advice = f"put its files there ({files}), or use --dataset synthetic"
            if wrong:  # perhaps a damaged file, so "auto" does not replace it by synthetic digits
                raise UserError(f"{next(iter(wrong.values()))}; {absent}; {advice}") from error
            raise DownloadError(f"{absent}; {advice}") from error
        found, wrong = _find(source, data_dir)
    if len(found) < len(source.files):
        reasons = [reason for path, reason in wrong.items() if path.parent == place]
        missing = next(file for file in source.files if file not in found)
        reason = reasons[0] if reasons else f"{missing} is not in the download of {source.folder}"
        again = f"get it from {source.origin}" if source.origin else "it will be downloaded again"
        raise UserError(f"{reason}; delete it, and {again}")
    images = len(found[source.test])
    labels = len(found[source.labels]) if source.labels else images
    if labels != images:
        raise UserError(
            f"{source.title} in {data_dir} has {labels} labels for {images} test images, so "
            f"{source.labels} or {source.test} is from another data set"
        )
    return found


def _find(source: Source, data_dir: Path) -> tuple[dict[str, Tensor], dict[Path, str]]:
    """Search `data_dir`, at most three folders deep, for the files of a data set.

    A name may have a dot before "idx", and the ending .gz of a packed file. Returns the contents of
    the files that were found, and a sentence for each file that is wrong.
    """
    paths = [path for n in range(4) for path in sorted(data_dir.glob("*/" * n + "*"))]
    owners = {path: _named_after(path.relative_to(data_dir)) for path in paths}
    # Files of several data sets have the same names, so a folder's name tells them apart.
    paths = [path for owner in (source.folder, "") for path in paths if owners[path] == owner]
    found: dict[str, Tensor] = {}
    wrong: dict[Path, str] = {}
    for file in source.files:
        name = file.replace(".amat", r"(\.amat|-images-idx3-ubyte)").replace("-idx", "[-.]idx")
        pattern = re.compile(name + r"(\.gz)?")
        for path in paths:
            if file not in found and pattern.fullmatch(path.name) and path.is_file():
                try:
                    found[file] = _read(source, file, path)
                except WrongFileError as error:
                    wrong[path] = f"{path} is damaged or from another data set ({error})"
    return found, wrong


def _named_after(path: Path) -> str:
    """The folder of the data set that a folder in the path is named after, or ""."""
    for part in reversed(path.parent.parts):
        name = part.lower().replace("-", "").replace("_", "")
        for key, source in SOURCES.items():
            if name in (key, source.folder.lower()):
                return source.folder
    return ""


def _read(source: Source, file: str, path: Path) -> Tensor:
    """Read the file of this name from a path, or raise WrongFileError."""
    content = reading.unpack(path)
    expected, mnist = source.md5.get(file), SOURCES["mnist"].md5.get(file)
    if expected or mnist:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if expected and found != expected:
            raise WrongFileError(f"its MD5 sum is {found} and not {expected}")
        if not expected and found == mnist and file != source.labels:
            raise WrongFileError("it is MNIST's")
    if file == source.labels:
        return reading.read_labels(content)
    return reading.read_images(content, file.endswith(".amat"), source.transposed)


def _download(source: Source, place: Path) -> None:
    """Download the files through torchvision, and keep the unpacked ones once all are complete."""
    import torchvision  # slow, and only needed here

    dataset = getattr(torchvision.datasets, source.folder, None)
    if not dataset:
        raise RuntimeError("torchvision does not have it")
    timeout = socket.getdefaulttimeout()
    # torchvision sets no time limit, and would wait for minutes behind a silent firewall.
    socket.setdefaulttimeout(20)
    try:
        # A failed download leaves nothing behind.
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
            for train in (True, False):
                # torchvision checks the MD5 sums of the packed files.
                dataset(scratch, train=train, download=True, **source.options)
            place.mkdir(parents=True, exist_ok=True)
            # This includes the labels of the training images, which other programs may need.
            prefix, _, _ = source.train[0].partition("train")
            for path in Path(scratch, source.folder, "raw").glob(f"{prefix}*"):
                if not path.suffix:
                    write_atomically(place / path.name, path.read_bytes())
    finally:
        socket.setdefaulttimeout(timeout)
