"""Data sets other than MNIST: their formats, their places, wrong files, and training on them."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import OFFLINE, ROOT
from few import are, files_below, idx, random_images, replace_download, write

from codebase.data import binarize
from codebase.datasets.loading import load
from codebase.datasets.sources import SOURCES, Source
from codebase.settings import dataset_title
from codebase.system.errors import DownloadError, UserError

pytest_plugins = "few"

EMNIST = tuple(
    f"emnist-digits-{split}-{kind}-ubyte"
    for split in ("train", "test")
    for kind in ("images-idx3", "labels-idx1")
)
QMNIST = tuple(
    f"qmnist-{split}-{kind}"
    for split in ("train", "test")
    for kind in ("images-idx3-ubyte", "labels-idx2-int")
)
AMAT = "binarized_mnist_train.amat", "binarized_mnist_valid.amat", "binarized_mnist_test.amat"
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name, nowhere in OFFLINE.items():
        monkeypatch.setenv(name, nowhere)


def eight_columns(labels):
    """Labels in QMNIST's form: the class, then seven numbers about its writer."""
    others = torch.randint(100_000, (len(labels), 7), dtype=torch.int32)
    return torch.cat([labels.int()[:, None], others], 1)


def write_set(folder: Path, name: str, tensors: list[torch.Tensor]) -> None:
    """Write images and labels into a folder, in the format of a data set."""
    train, train_labels, test, test_labels = tensors
    if name == "qmnist":
        train_labels, test_labels = eight_columns(train_labels), eight_columns(test_labels)
        write(folder, [train, train_labels, test, test_labels], QMNIST)
    elif name == "emnist":
        write(folder, [train.mT, train_labels, test.mT, test_labels], EMNIST)
    elif name == "binarized":
        folder.mkdir(parents=True, exist_ok=True)
        for file, values in zip(AMAT, (train[:-2], train[-2:], test), strict=True):
            np.savetxt(folder / file, values.flatten(1) > 127, fmt="%d")
    else:
        write(folder, tensors)


# Right files.


@pytest.mark.parametrize("name", ["fashion", "kmnist", "qmnist", "emnist"])
@pytest.mark.parametrize("place", ["", "some/folder"])
def test_a_data_set_is_read_as_torchvision_reads_it(tmp_path, name, place):
    tensors = random_images(30, 20)
    class_name = {"fashion": "FashionMNIST"}.get(name, name.upper())
    raw = tmp_path / class_name / "raw"
    write_set(raw, name, tensors)
    options = {"split": "digits"} if name == "emnist" else {}
    theirs = getattr(torchvision.datasets, class_name)(tmp_path, train=False, **options)
    if place:
        raw.rename(tmp_path / "folder")
    images = load(name.upper(), tmp_path)
    assert images.name == name
    upright = theirs.data.mT if name == "emnist" else theirs.data
    assert torch.equal(images.test.view(-1, 28, 28), upright)
    targets = theirs.targets[:, 0] if name == "qmnist" else theirs.targets
    assert torch.equal(images.test_labels, targets)
    assert are(images, tensors)


def test_data_sets_with_the_same_file_names_are_told_apart_by_their_folders(tmp_path, few):
    fashion, kmnist = random_images(30, 20), random_images(25, 15)
    write(tmp_path / "MNIST" / "raw", few)
    write(tmp_path / "Fashion-MNIST", fashion)
    with pytest.raises(DownloadError, match="KMNIST is not in"):
        load("kmnist", tmp_path)
    write(tmp_path / "kmnist", kmnist)
    for name, tensors in (("fashion", fashion), ("kmnist", kmnist), ("mnist", few)):
        assert are(load(name, tmp_path), tensors)


@pytest.mark.parametrize("form", ["text", "idx"])
def test_the_fixed_binarization_gives_exactly_its_bits(tmp_path, form):
    tensors = random_images(12, 5)
    bits = [(values > 127).flatten(1).float() for values in tensors[::2]]
    if form == "text":
        write_set(tmp_path, "binarized", tensors)
    else:
        names = [file.replace(".amat", "-images-idx3-ubyte") for file in AMAT]
        values = [(255 * x).byte().view(-1, 28, 28) for x in (bits[0][:10], bits[0][10:], bits[1])]
        write(tmp_path, values, names)
    images = load("binarized", tmp_path)
    for _ in range(3):
        assert torch.equal(binarize(images.train), bits[0])
    assert torch.equal(images.test_bits, bits[1])
    assert len(images.test_labels) == 0


# Downloads.


@pytest.mark.parametrize("name, class_name", [("qmnist", "QMNIST"), ("emnist", "EMNIST")])
def test_a_download_leaves_the_unpacked_files_of_the_data_set(
    tmp_path, monkeypatch, name, class_name
):
    tensors, others, done = random_images(6, 4), random_images(2, 2), []

    def download(folder):
        write_set(folder, name, tensors)
        if name == "qmnist" and not done:  # torchvision downloads its two parts separately
            (folder / QMNIST[2]).unlink()
        done.append(name)
        write(folder, others, tuple(file.replace("digits", "letters") for file in EMNIST))
        (folder / "archive.gz").touch()

    replace_download(monkeypatch, download, class_name)
    assert are(load(name, tmp_path), tensors)
    assert files_below(tmp_path) == sorted(QMNIST if name == "qmnist" else EMNIST)
    monkeypatch.delattr(torchvision.datasets, class_name)
    assert are(load(name, tmp_path), tensors)


@pytest.mark.parametrize("name", ["fashion", "qmnist", "emnist", "binarized", "own"])
def test_a_data_set_that_is_not_there_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setitem(SOURCES, "own", Source("My own", "Own", ("a-train",), "a-test"))
    with pytest.raises(DownloadError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{dataset_title(name)} is not in")
    assert all(file in message for file in SOURCES[name].files)
    assert ("torchvision does not have it" in message) == (name in ("binarized", "own"))
    assert files_below(tmp_path) == []


# Wrong files. They are in the place of a download, so that none is tried.


@pytest.mark.parametrize(
    "file, content, word",
    [
        (IMAGES, idx(torch.zeros(20, 32, 32, dtype=torch.uint8)), "32 x 32"),
        (IMAGES, idx(torch.zeros(20, 16, 16, dtype=torch.uint8)), "16 x 16"),
        (IMAGES, idx(torch.zeros(20, 28, 28, dtype=torch.uint8))[:-1], "promises 15696"),
        (IMAGES, idx(torch.zeros(20, 28, 28, dtype=torch.uint8)) + b"\0", "promises 15696"),
        (IMAGES, idx(torch.zeros(20, 28, 28, dtype=torch.int32)), "images"),
        (IMAGES, idx(torch.zeros(0, 28, 28, dtype=torch.uint8)), "nothing"),
        (IMAGES, idx(torch.zeros(20, dtype=torch.uint8)), "images"),
        (IMAGES, bytes.fromhex("00000803 00"), "header"),
        (IMAGES, bytes.fromhex("00000D01 00000001 00000000"), "header"),  # float32
        (IMAGES, b"<html>not found</html>", "header"),
        (IMAGES, b"", "empty"),
        (IMAGES, b"\0\0\x08\xff" + b"\xff" * 1020, "promises"),
        (LABELS, idx(torch.zeros(20, 28, 28, dtype=torch.uint8)), "labels"),
        (LABELS, idx(torch.zeros(19, dtype=torch.uint8)), "19 labels for 20"),
        (LABELS, idx(torch.zeros(20, dtype=torch.uint8))[:-1], "promises 28"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, file, content, word):
    raw = tmp_path / "KMNIST" / "raw"
    write(raw, random_images(30, 20))
    (raw / file).write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        load("kmnist", tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_the_files_of_mnist_are_no_other_data_set(tmp_path, few):
    write(tmp_path / "FashionMNIST" / "raw", few)
    with pytest.raises(UserError, match=r"FashionMNIST/raw/train-images.* MNIST's"):
        load("fashion", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"0 1 " * 392 + b"\n" + b"0 1 " * 391 + b"\n",
        b"0 1\n" * 784,
        b"0 2 " * 392,
        b"0 0.5 " * 392,
        b"0 -1 " * 392,
        b"\xff\xfe",
        b"",
        idx(torch.full((2, 28, 28), 128, dtype=torch.uint8)),
    ],
)
def test_a_wrong_binarization_is_refused_in_a_sentence(tmp_path, content):
    raw = tmp_path / "BinarizedMNIST" / "raw"
    write_set(raw, "binarized", random_images(12, 5))
    (raw / AMAT[1]).write_bytes(content)
    with pytest.raises(UserError, match=r"valid.amat is damaged.*larocheh") as caught:
        load("binarized", tmp_path)
    assert "\n" not in str(caught.value)


# Training.


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
@pytest.mark.parametrize(
    "name", ["fashion", "kmnist", "qmnist", "emnist", "binarized", "letters", "five"]
)
def test_every_kind_of_data_set_is_trained_on_and_shown(run_vae, monkeypatch, name):
    """Two of them have other labels than the ten digits: 1 to 26, and 0 to 4."""
    entry = eval(f"{{{shown_in_the_docs(0)}}}", {"Source": Source})
    monkeypatch.setitem(SOURCES, "letters", entry["letters"])
    monkeypatch.setitem(SOURCES, "five", SOURCES["fashion"]._replace(title="five", folder="Five"))
    tensors = random_images(30, 60, classes={"letters": 26, "five": 5}.get(name, 10))
    if name == "letters":
        tensors[3] += 1
        names = tuple(file.replace("digits", "letters") for file in EMNIST)
        write(Path("data", "letters"), tensors, names)
    else:
        write_set(Path("data", "here"), name, tensors)
    arguments = ("--nn", "tiny", "--z", 2, "--batch_size", 5, "--iter_max", 3)
    finished = run_vae("--dataset", name, *arguments, "--train", 2, "--figures", 1, "--explorer", 1)
    assert (finished.returncode, finished.stderr.count("Warning")) == (0, 0), finished.stderr
    folder = f"model=vae_nn=tiny_z=02_batch_size=5_dataset={name}_run=0000"
    assert f"Data: {name}, 30 training and 60 test images\n" in finished.stdout
    bounds = [line for line in finished.stdout.splitlines() if line.startswith("NELBO: ")]
    ends = [f"({name}, 100 test images)", f"({name}, all 60 test images)"]
    assert [line.split("  ")[-1].strip() for line in bounds] == ends
    # The assignment's picture is only for the assignment's settings.
    assert len(list(Path("checkpoints", folder).glob("*.png"))) == 5
    assert list(Path().glob("*.png")) == []
    assert dataset_title(name) in Path("checkpoints", folder, "explorer.html").read_text()
