"""Loading a data set: what is let in, what is downloaded, and what stands in for it."""

import errno
import gzip
import hashlib
import http.client
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from codebase.data import DOWNLOADS
from codebase.datasets.loading import load, load_downloaded
from codebase.system.errors import DownloadError, UserError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def idx(values):
    """A tensor of bytes as a file in MNIST's format."""
    header = [0x800 + values.dim(), *values.shape]
    content = b"".join(number.to_bytes(4, "big") for number in header)
    return content + values.numpy().tobytes()


@pytest.fixture
def few(monkeypatch):
    """A few random images that pass for MNIST, as tensors in the order of the files."""
    tensors = []
    for n in (5, 3):
        tensors.append(torch.randint(256, (n, 28, 28), dtype=torch.uint8))
        tensors.append(torch.randint(10, (n,), dtype=torch.uint8))
    sums = [hashlib.md5(idx(values)).hexdigest() for values in tensors]
    monkeypatch.setitem(DOWNLOADS, "mnist", ("MNIST", *sums))
    return tensors


def write(folder, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(FILES, tensors, strict=True):
        (folder / name).write_bytes(idx(values))


@pytest.fixture
def raw(few, tmp_path):
    """The folder of MNIST's files, with a few images in them."""
    folder = tmp_path / "MNIST" / "raw"
    write(folder, few)
    return folder


@pytest.fixture
def downloading(monkeypatch):
    """Have torchvision's download do something else, given the folder that it downloads into."""

    def instead(action):
        import torchvision

        def download(self):
            os.makedirs(self.raw_folder)
            action(Path(self.raw_folder))

        monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)

    return instead


@pytest.fixture
def no_downloading(downloading):
    downloading(lambda folder: pytest.fail("asked"))


def are(images, tensors):
    """Whether the images are these, in the order of the files."""
    flat = [x.flatten(1) if x.dim() > 1 else x for x in tensors]
    return all(map(torch.equal, images[1:], flat))


def files_below(folder):
    """The names of the files, without the lock, which is empty and stays."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


# What is there.


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_files_that_are_there_are_read_and_not_downloaded(
    tmp_path, raw, few, dataset, no_downloading, capsys
):
    images = load(dataset, tmp_path)
    assert images.name == "mnist"
    assert images.train.shape == (5, 784)
    assert images.test.shape == (3, 784)
    assert {x.dtype for x in images[1:]} == {torch.uint8}
    assert are(images, few)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_mnist_is_read_as_torchvision_reads_it(mnist_dir):
    from torchvision.datasets import MNIST

    images = load("mnist", mnist_dir)
    assert images.name == "mnist"
    for train, n, x, y in [
        (True, 60000, images.train, images.train_labels),
        (False, 10000, images.test, images.test_labels),
    ]:
        theirs = MNIST(mnist_dir, train=train)
        assert x.dtype == y.dtype == torch.uint8
        assert x.shape == (n, 784)
        assert torch.equal(x, theirs.data.flatten(1))
        assert torch.equal(y.long(), theirs.targets)
    assert images.test_labels.bincount().tolist() == TEST_COUNTS


def test_another_data_set_takes_an_entry_in_the_table(tmp_path, few, monkeypatch):
    _, *sums = DOWNLOADS["mnist"]
    monkeypatch.setitem(DOWNLOADS, "fashion", ("FashionMNIST", *sums))
    write(tmp_path / "FashionMNIST" / "raw", few)
    images = load_downloaded("fashion", tmp_path)
    assert images.name == "fashion"
    assert are(images, few)


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UserError) as caught:
        load("mnits", tmp_path)
    sentence = "argument --dataset: must be auto or mnist or synthetic, not 'mnits'"
    assert (str(caught.value), caught.value.status) == (sentence, 2)


def packed(folder, name, content):
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def with_a_dot(folder, name, content):
    (folder / name.replace("-idx", ".idx")).write_bytes(content)


def in_a_folder_of_its_name(folder, name, content):
    """As Kaggle's archive is unpacked."""
    name = name.replace("-idx", ".idx")
    (folder / name).mkdir()
    (folder / name / name).write_bytes(content)


@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST", "raw", "."])
@pytest.mark.parametrize("put", [packed, with_a_dot, in_a_folder_of_its_name, None])
def test_files_are_found_where_people_put_them(tmp_path, few, no_downloading, place, put):
    folder = tmp_path / place
    if put is None:
        write(folder, few)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in zip(FILES, few, strict=True):
            put(folder, name, idx(values))
    before = sorted(tmp_path.rglob("*"))
    assert are(load("auto", tmp_path), few)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"no archive", gzip.compress(b"another file"), b""], ids=["no", "another", "empty"]
)
def test_a_damaged_archive_is_named(tmp_path, few, downloading, content):
    """It may be another data set's, so that this one is downloaded; where it can be."""

    def download(folder):
        raise OSError("no route")

    for name, values in zip(FILES, few, strict=True):
        packed(tmp_path, name, idx(values))
    path = tmp_path / f"{FILES[2]}.gz"
    path.write_bytes(content)
    downloading(download)
    with pytest.raises(DownloadError, match=f"^{path} is damaged or not MNIST's {FILES[2]} "):
        load("mnist", tmp_path)
    downloading(lambda folder: write(folder, few))
    assert are(load("mnist", tmp_path), few)
    assert path.read_bytes() == content


def test_another_data_set_does_not_take_the_files_of_mnist(tmp_path, few, downloading, monkeypatch):
    fashion = [x + 1 for x in few]
    sums = [hashlib.md5(idx(values)).hexdigest() for values in fashion]
    monkeypatch.setitem(DOWNLOADS, "fashion", ("FashionMNIST", *sums))
    write(tmp_path, few)
    import torchvision

    def download(self):
        os.makedirs(self.raw_folder)
        write(Path(self.raw_folder), fashion)

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", download)
    assert are(load_downloaded("fashion", tmp_path), fashion)
    assert are(load("mnist", tmp_path), few)


def test_a_sound_file_counts_wherever_a_damaged_one_is(tmp_path, raw, few, no_downloading):
    (raw / FILES[0]).write_bytes(b"damaged")
    (tmp_path / FILES[0]).write_bytes(idx(few[0]))
    assert are(load("mnist", tmp_path), few)


def test_where_there_are_no_locks_it_is_downloaded_too(
    tmp_path, few, downloading, monkeypatch, capsys
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    downloading(lambda folder: write(folder, few))
    assert are(load("auto", tmp_path), few)
    assert "on a file system without locks" in capsys.readouterr().err


# What is not let in.


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(tmp_path, raw, dataset, name, no_downloading):
    path = raw / name
    content = bytearray(path.read_bytes())
    md5 = hashlib.md5(content).hexdigest()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(dataset, tmp_path)
    assert not isinstance(caught.value, DownloadError)
    found = hashlib.md5(content).hexdigest()
    assert str(caught.value) == (
        f"{path} is damaged or not MNIST's {name} (its MD5 sum is {found}, and not {md5} as in "
        "DOWNLOADS of codebase/data.py); delete it, and it is downloaded again"
    )


@pytest.mark.parametrize("damage", ["cut", "emptied", "swapped", "another set's"])
def test_other_files_of_the_right_name_are_refused(tmp_path, raw, damage, no_downloading):
    path = raw / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "swapped":
        (raw / "train-images-idx3-ubyte").replace(path)
        (raw / "train-images-idx3-ubyte").write_bytes(content)
    else:  # Fashion-MNIST's files have the same header and size
        path.write_bytes(content[:16] + bytes(len(content) - 16))
    with pytest.raises(UserError, match="images-idx3-ubyte is damaged or not MNIST's "):
        load("mnist", tmp_path)


# What is downloaded.


@pytest.mark.parametrize("missing", FILES)
def test_where_a_file_is_missing_all_are_downloaded(tmp_path, raw, few, downloading, missing):
    for name in FILES:
        (raw / name).write_bytes(b"old")
    (raw / missing).unlink()
    downloading(lambda folder: write(folder, few))
    assert are(load("mnist", tmp_path), few)


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_a_download_arrives_in_its_place(tmp_path, few, downloading, dataset):
    downloading(lambda folder: write(folder, few))
    images = load(dataset, tmp_path / "new" / "folder")
    assert images.name == "mnist"
    assert are(images, few)
    assert files_below(tmp_path) == sorted(FILES)
    assert files_below(tmp_path / "new" / "folder" / "MNIST" / "raw") == sorted(FILES)


def test_what_was_downloaded_is_checked(tmp_path, few, downloading):
    downloading(lambda folder: write(folder, [x + 1 for x in few]))
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged"):
        load("auto", tmp_path)


def test_of_several_that_find_no_mnist_one_downloads(tmp_path, few, downloading):
    started, another = [], threading.Event()

    def download(folder):
        started.append(folder)
        if len(started) > 1:
            another.set()
        another.wait(0.5)  # for a second one, which would start now were it not kept waiting
        write(folder, few)

    downloading(download)
    before = socket.getdefaulttimeout()
    try:
        with ThreadPoolExecutor(3) as pool:
            loaded = list(pool.map(load, 3 * ["mnist"], 3 * [tmp_path]))
    finally:
        socket.setdefaulttimeout(before)  # which threads share, as processes do not
    assert len(started) == 1
    assert all(are(images, few) for images in loaded)


@pytest.mark.parametrize("usual", [None, 7.0])
def test_a_download_keeps_standard_output_clean_and_does_not_wait_forever(
    tmp_path, downloading, capsys, usual
):
    timeouts, folders = [], []

    def download(folder):
        timeouts.append(socket.getdefaulttimeout())
        folders.append(folder)
        print("100%")
        raise OSError("no")

    downloading(download)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(usual)
    try:
        with pytest.raises(DownloadError):
            load("mnist", tmp_path)
        assert socket.getdefaulttimeout() == usual
    finally:
        socket.setdefaulttimeout(before)
    assert 5 <= timeouts[0] <= 60
    assert capsys.readouterr() == ("", "100%\n")
    # A process that is killed meanwhile leaves nothing behind in the data folder.
    assert tmp_path not in folders[0].parents


# What cannot be downloaded.


def test_a_failed_download_gives_the_reason_and_leaves_nothing(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path)
    message = str(caught.value)
    assert "Connection refused" in message
    assert "\n" not in message
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "error, reason",
    [
        (RuntimeError("Error downloading:\nTried a mirror, got:\nConnection reset\n"), None),
        (URLError("Connection reset"), "urlopen error Connection reset"),
        (OSError("Connection reset"), None),
        (http.client.BadStatusLine("Connection reset"), None),
        (ImportError("Connection reset"), None),
        (http.client.HTTPException(), "HTTPException()"),
    ],
)
def test_a_broken_off_download_gives_the_reason_and_leaves_nothing(
    tmp_path, few, downloading, error, reason
):
    def break_off(folder):
        write(folder, few)
        raise error

    downloading(break_off)
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path / "new" / "folder")
    assert str(caught.value) == (
        f"MNIST is not in {tmp_path}/new/folder/MNIST/raw and could not be downloaded "
        f"({reason or 'Connection reset'}); put its four files there "
        f"({', '.join(FILES)}, packed or not), or use --dataset synthetic"
    )
    assert caught.value.__cause__ is error
    assert files_below(tmp_path) == []


def test_without_torchvision_mnist_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DownloadError, match=r"could not be downloaded \(.*torchvision.*\)"):
        load("mnist", tmp_path)


def test_an_interrupted_download_leaves_nothing_and_is_not_hidden(tmp_path, few, downloading):
    def interrupt(folder):
        write(folder, few)
        raise KeyboardInterrupt

    downloading(interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("auto", tmp_path)
    assert files_below(tmp_path) == []


# What stands in.


@pytest.mark.slow
def test_auto_falls_back_with_a_warning(tmp_path, synthetic_images, downloading, capsys):
    def download(folder):
        raise OSError("no route")

    downloading(download)
    images = load("auto", tmp_path)
    assert images.name == "synthetic"
    assert all(map(torch.equal, images[1:], synthetic_images[1:]))
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path)
    assert capsys.readouterr() == (
        "",
        "Warning: using the synthetic digits, whose bounds cannot be compared with MNIST's: "
        f"{caught.value}\n",
    )


@pytest.mark.slow
def test_synthetic_digits_are_always_the_same_and_need_no_folder(
    tmp_path, synthetic_images, capsys
):
    state = torch.get_rng_state()
    images = load("synthetic", tmp_path / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert images.name == "synthetic"
    assert all(map(torch.equal, images[1:], synthetic_images[1:]))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_synthetic_digits_have_mnists_shape(synthetic_images):
    name, train, train_labels, test, test_labels = synthetic_images
    assert name == "synthetic"
    assert train.shape == (60000, 784)
    assert test.shape == (10000, 784)
    assert {x.dtype for x in synthetic_images[1:]} == {torch.uint8}
    assert train_labels.bincount().tolist() == [6000] * 10
    assert test_labels.bincount().tolist() == TEST_COUNTS
    assert not torch.equal(train[train_labels == 0][:100], test[test_labels == 0][:100])
