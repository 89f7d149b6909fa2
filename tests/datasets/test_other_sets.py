"""Data sets other than MNIST: their formats, their places, wrong files, and training on them."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from few import FILES, are, files_below, idx, random_images, write

from codebase.data import binarize
from codebase.datasets.loading import load
from codebase.datasets.sources import SOURCES, Source
from codebase.settings import dataset_title
from codebase.system.errors import DownloadError, UserError

pytest_plugins = "few"
pytestmark = pytest.mark.usefixtures("few")

PARTS = [name.replace("t10k", "test") for name in FILES]
EMNIST = [f"emnist-digits-{part}" for part in PARTS]
LETTERS = [f"emnist-letters-{part}" for part in PARTS]
QMNIST = [f"qmnist-{part.replace('idx1-ubyte', 'idx2-int')}" for part in PARTS]
AMAT = "binarized_mnist_train.amat", "binarized_mnist_valid.amat", "binarized_mnist_test.amat"
*_, IMAGES, LABELS = FILES


def write_set(folder: Path, name: str, tensors: list[torch.Tensor]) -> None:
    """Write images and labels into a folder, in the format of a data set."""
    train, train_labels, test, test_labels = tensors
    if name == "qmnist":
        # QMNIST's labels are the class, and seven numbers about the writer.
        numbers = torch.arange(8, dtype=torch.int32)
        train_labels, test_labels = (x[:, None] + numbers for x in (train_labels, test_labels))
        write(folder, [train, train_labels, test, test_labels], QMNIST)
    elif name == "emnist":
        write(folder, [train.mT, train_labels, test.mT, test_labels], EMNIST)
    elif name == "binarized":
        folder.mkdir(parents=True, exist_ok=True)
        for file, values in zip(AMAT, (train[:-2], train[-2:], test), strict=True):
            np.savetxt(folder / file, values.flatten(1) > 127, fmt="%d")
    else:
        write(folder, tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, files", [("fashion", FILES), ("kmnist", FILES), ("qmnist", QMNIST), ("emnist", EMNIST)]
)
def test_a_data_set_is_downloaded_and_read_as_torchvision_reads_it(
    tmp_path, monkeypatch, name, files
):
    import torchvision  # slow

    tensors, done, source = random_images(30, 20), [], SOURCES[name]
    dataset = getattr(torchvision.datasets, source.folder)

    def download(dataset):
        folder = Path(dataset.raw_folder)
        write_set(folder, name, tensors)
        if name == "qmnist" and not done:  # torchvision downloads its two parts separately
            (folder / QMNIST[2]).unlink()
        done.append(name)
        if name == "emnist":  # Its archive also has other sets.
            write(folder, random_images(2, 2), LETTERS)
        (folder / f"{files[0]}.gz").touch()

    monkeypatch.setattr(dataset, "download", download)
    images = load(name.upper(), tmp_path)
    assert images.name == name and are(images, tensors)
    theirs = dataset(tmp_path, train=False, **source.options)
    upright = theirs.data.mT if name == "emnist" else theirs.data
    targets = theirs.targets[:, 0] if name == "qmnist" else theirs.targets
    assert torch.equal(images.test.view(-1, 28, 28), upright)
    assert torch.equal(images.test_labels, targets)
    monkeypatch.delattr(torchvision.datasets, source.folder)  # It is not needed any more.
    (tmp_path / source.folder / "raw").rename(tmp_path / "folder")
    assert are(load(name, tmp_path), tensors)
    assert files_below(tmp_path) == sorted(files)


def test_sets_with_the_same_file_names_are_told_apart_by_their_folders(tmp_path, few, downloading):
    downloading(lambda folder: None, "KMNIST")  # It leaves no file.
    fashion, kmnist = random_images(30, 20), random_images(25, 15)
    write(tmp_path / "MNIST" / "raw", few)
    write(tmp_path / "Fashion-MNIST", fashion)
    with pytest.raises(UserError, match="not in the download of KMNIST"):
        load("kmnist", tmp_path)
    write(tmp_path / "kmnist", kmnist)
    write(tmp_path / "other", random_images(20, 10))  # A folder of the set's name comes first.
    for name, tensors in (("fashion", fashion), ("kmnist", kmnist), ("mnist", few)):
        assert are(load(name, tmp_path), tensors)
    write(tmp_path / "new" / "FashionMNIST" / "raw", few)
    with pytest.raises(UserError, match=r"FashionMNIST/raw/train-images.* MNIST's"):
        load("fashion", tmp_path / "new")


@pytest.mark.parametrize("form", ["text", "idx"])
def test_the_fixed_binarization_gives_exactly_its_bits(tmp_path, form):
    tensors = random_images(12, 5)
    train, test = ((values > 127).flatten(1).float() for values in tensors[::2])
    if form == "text":
        write_set(tmp_path, "binarized", tensors)
    else:
        names = [file.replace(".amat", "-images-idx3-ubyte") for file in AMAT]
        bits = [255 * (x > 127).byte() for x in (*tensors[0].split(10), tensors[2])]
        write(tmp_path, bits, names)
    images = load("binarized", tmp_path)
    assert torch.equal(binarize(images.train), train)
    assert torch.equal(images.test_bits, test)
    assert len(images.test_labels) == 0


def shown_in_the_docs(number: int) -> str:
    """A block of code below "Your own data" in the page on changes."""
    page = (ROOT / "docs" / "changing.md").read_text(encoding="utf-8")
    return page.split("### Your own data")[1].split("```")[2 * number + 1]


def test_own_data_needs_the_file_and_the_entry_that_the_docs_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/Mine/raw").mkdir(parents=True)
    images = np.random.default_rng(0).integers(256, size=(7, 28, 28), dtype=np.uint8)
    exec(shown_in_the_docs(1), {"struct": struct, "Path": Path, "images": images})
    shutil.copy("data/Mine/raw/mine-train", "data/Mine/raw/mine-test")
    monkeypatch.setitem(SOURCES, "mine", Source("my data", "Mine", ("mine-train",), "mine-test"))
    mine = load("mine", Path("data"))
    assert mine.train.tolist() == mine.test.tolist() == images.reshape(7, 784).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binarized", "letters"])
def test_data_with_any_labels_is_trained_on_and_shown(run_vae, monkeypatch, name):
    """These have no labels, and the labels 1 to 26."""
    entry = eval(f"{{{shown_in_the_docs(0)}}}", {"Source": Source})
    monkeypatch.setitem(SOURCES, "letters", entry["letters"])
    tensors = random_images(30, 60, classes=26)
    tensors[3] += 1
    write_set(Path("data", "here"), "binarized", tensors)
    write(Path("data", "letters"), tensors, LETTERS)
    arguments = ("--nn", "tiny", "--z", 2, "--batch_size", 5, "--iter_max", 3)
    finished = run_vae("--dataset", name, *arguments, "--figures", 1, "--explorer", 1)
    assert (finished.returncode, finished.stderr.count("Warning")) == (0, 0), finished.stderr
    folder = Path(f"checkpoints/model=vae_nn=tiny_z=02_batch_size=5_dataset={name}_run=0000")
    assert f"({name}, all 60 test images)\n" in finished.stdout
    # The assignment's picture is only for the assignment's settings.
    assert len([*folder.glob("*.png")]) == 5 and not [*Path().glob("*.png")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion", "emnist", "binarized", "own"])
def test_a_data_set_that_is_not_there_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setitem(SOURCES, "own", Source("My own", "Own", ("a-train",), "a-test"))
    with pytest.raises(DownloadError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(dataset_title(name))
    assert all(text in message for text in (*SOURCES[name].files, SOURCES[name].origin))
    assert ("torchvision does not" in message) == (name in ("binarized", "own"))
    assert files_below(tmp_path) == []


def zeros(*shape, dtype=torch.uint8):
    return idx(torch.zeros(*shape, dtype=dtype))


@pytest.mark.parametrize(
    "file, content, word",
    [
        (IMAGES, zeros(20, 32, 16), "32 x 16"),
        (IMAGES, zeros(20, 28, 28)[:-1], "promises 15696"),
        (IMAGES, zeros(20, 28, 28) + b"\0", "promises 15696"),
        (IMAGES, zeros(20, 28, 28, dtype=torch.int32), "images"),
        (IMAGES, zeros(0, 28, 28), "nothing"),
        (IMAGES, zeros(20), "images"),
        (IMAGES, bytes.fromhex("00000803 00"), "header"),
        (IMAGES, bytes.fromhex("00000D01 00000001 00000000"), "header"),  # float32
        (IMAGES, b"<html>not found</html>", "header"),
        (IMAGES, b"", "empty"),
        (LABELS, zeros(20, 28, 28), "labels"),
        (LABELS, zeros(19), "19 labels for 20"),
        (LABELS, zeros(20)[:-1], "promises 28"),
        (AMAT[1], b"0 1 " * 392 + b"\n" + b"0 1 " * 391 + b"\n", "larocheh"),
        (AMAT[1], b"0 1\n" * 784, "larocheh"),
        (AMAT[1], b"0 2 " * 392, "larocheh"),
        (AMAT[1], b"0 0.5 " * 392, "larocheh"),
        (AMAT[1], b"\xff\xfe", "larocheh"),
        (AMAT[1], idx(torch.full((2, 28, 28), 128, dtype=torch.uint8)), "larocheh"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, file, content, word):
    name = "binarized" if file in AMAT else "kmnist"
    raw = tmp_path / SOURCES[name].folder / "raw"  # a download's place, so that none is tried
    write_set(raw, name, random_images(30, 20))
    (raw / file).write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        load(name, tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)
