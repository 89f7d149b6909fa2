"""The images: what is let in, what stands in, and the assignment's protocol."""

import hashlib
import http.client
import math
import os
import shutil
import socket
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from codebase.errors import DataError, DownloadError

from codebase import data

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

# The assignment's own table: for each digit, positions among the test images of that digit.
POSITIONS = """
0: 684 559 629 192 835 763 707 359   9 723
1: 277 599 1094 600 314 705 551 87 174 849
2: 537 845  72 777 115 976 755 448 850  99
3: 984 177 755 797 659 147 910 423 288 961
4: 265 697 639 544 543 714 244 151 675 510
5: 459 882 183  28 802 128 128  53 550 488
6: 756 273 335 388 617  42 442 543 888 257
7:  57 291 779 430  91 398 611 908 633  84
8: 203 324 774 964  47 639 131 972 868 180
9: 1000 846 143 660 227 954 791 719 909 373
"""
# SHA-256 of the 100 images one after the other, of 784 bytes each.
REPORT_SHA256 = "cca7736cc034a489d6ccd71b91b8276ead34c7dd6d3c64d23a760d277e8b4c80"


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails as it does without a network."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there


@pytest.fixture
def own_mnist(mnist_dir, tmp_path):
    """A data folder of links to MNIST's files, any of which a test may replace."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).symlink_to(mnist_dir / "MNIST" / "raw" / name)
    return tmp_path


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def downloading(monkeypatch):
    """Have torchvision's download do something else, given the folder that it downloads into."""

    def instead(action):
        import torchvision

        def download(self):
            os.makedirs(self.raw_folder)
            action(self.raw_folder)

        monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)

    return instead


def write_others(folder):
    """Files of MNIST's names and format with one black image in each."""
    for name in FILES:
        shape = [1, 28, 28] if "images" in name else [1]
        header = [0x800 + len(shape), *shape]
        content = b"".join(number.to_bytes(4, "big") for number in header)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content + bytes(math.prod(shape)))


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def equal(images, others):
    return all(map(torch.equal, images[1:], others[1:]))


@pytest.mark.slow
def test_mnist_is_read_as_torchvision_reads_it(mnist_dir):
    from torchvision.datasets import MNIST

    images = data.load("mnist", mnist_dir)
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


def test_auto_is_mnist_where_it_is(mnist_dir, capsys):
    assert data.load("auto", mnist_dir).name == "mnist"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(own_mnist, dataset, name):
    path = own_mnist / "MNIST" / "raw" / name
    content = bytearray(path.read_bytes())
    md5 = hashlib.md5(content).hexdigest()
    content[len(content) // 2] ^= 1
    replace(path, content)
    with pytest.raises(DataError) as caught:
        data.load(dataset, own_mnist)
    assert str(caught.value) == (
        f"{path} is damaged or not MNIST's (its MD5 sum is not {md5}); "
        "delete it, and it is downloaded again"
    )


@pytest.mark.parametrize("damage", ["cut", "emptied", "swapped", "another set's"])
def test_other_files_of_the_right_name_are_refused(own_mnist, damage):
    folder = own_mnist / "MNIST" / "raw"
    path = folder / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    if damage == "cut":
        replace(path, content[:-1])
    elif damage == "emptied":
        replace(path, b"")
    elif damage == "swapped":
        (folder / "train-images-idx3-ubyte").replace(path)
        (folder / "train-images-idx3-ubyte").write_bytes(content)
    else:  # Fashion-MNIST's files have the same header and size
        replace(path, content[:16] + bytes(len(content) - 16))
    with pytest.raises(DataError, match="images-idx3-ubyte is damaged or not MNIST's"):
        data.load("mnist", own_mnist)


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_files_that_are_there_are_not_downloaded_again(tmp_path, dataset, downloading):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    write_others(folder)
    downloading(lambda folder: pytest.fail("asked"))
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged or not MNIST's"):
        data.load(dataset, tmp_path)


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_downloaded(tmp_path, downloading, missing):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        if name != missing:
            (folder / name).write_bytes(b"old")
    downloading(write_others)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        data.load("mnist", tmp_path)
    assert all((folder / name).read_bytes() != b"old" for name in FILES)


def test_a_failed_download_gives_the_reason_and_leaves_nothing(tmp_path, no_network):
    with pytest.raises(DownloadError) as caught:
        data.load("mnist", tmp_path)
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
    tmp_path, downloading, error, reason
):
    def break_off(folder):
        write_others(folder)
        raise error

    downloading(break_off)
    with pytest.raises(DownloadError) as caught:
        data.load("mnist", tmp_path / "new" / "folder")
    assert str(caught.value) == (
        f"MNIST is not in {tmp_path}/new/folder/MNIST/raw and could not be downloaded "
        f"({reason or 'Connection reset'}); put its four uncompressed files there "
        f"({', '.join(FILES)}), or use --dataset synthetic"
    )
    assert caught.value.__cause__ is error
    assert files_below(tmp_path) == []


def test_without_torchvision_mnist_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DownloadError, match=r"could not be downloaded \(.*torchvision.*\)"):
        data.load("mnist", tmp_path)


def test_an_interrupted_download_leaves_nothing_and_is_not_hidden(tmp_path, downloading):
    def interrupt(folder):
        write_others(folder)
        raise KeyboardInterrupt

    downloading(interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.load("auto", tmp_path)
    assert files_below(tmp_path) == []


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
            data.load("mnist", tmp_path)
        assert socket.getdefaulttimeout() == usual
    finally:
        socket.setdefaulttimeout(before)
    assert 5 <= timeouts[0] <= 60
    assert capsys.readouterr() == ("", "100%\n")
    # A process that is killed meanwhile leaves nothing behind in the data folder.
    assert tmp_path not in Path(folders[0]).parents


def test_a_download_arrives_in_its_place(mnist_dir, tmp_path, downloading):
    def download(folder):
        shutil.copytree(mnist_dir / "MNIST" / "raw", folder, dirs_exist_ok=True)

    downloading(download)
    images = data.load("auto", tmp_path)
    assert images.name == "mnist"
    assert equal(images, data.load("mnist", mnist_dir))
    assert files_below(tmp_path) == sorted(FILES)
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(FILES)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """An archive of the synthetic digits' shapes, and the data folder it is in."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("archive") / "synthetic"
    folder.mkdir()
    content = {
        "train": np.tile(generator.integers(256, size=(600, 784), dtype=np.uint8), (100, 1)),
        "train_labels": generator.integers(10, size=60000, dtype=np.uint8),
        "test": np.tile(generator.integers(256, size=(100, 784), dtype=np.uint8), (100, 1)),
        "test_labels": generator.integers(10, size=10000, dtype=np.uint8),
    }
    np.savez(folder / "digits-v1.npz", **content)
    return folder.parent, content


def test_synthetic_digits_that_were_kept_are_read(archive, capsys):
    folder, content = archive
    images = data.load("synthetic", folder)
    assert images.name == "synthetic"
    for field, expected in content.items():
        assert getattr(images, field).dtype == torch.uint8
        assert np.array_equal(getattr(images, field).numpy(), expected)
    assert capsys.readouterr() == ("", "")


def test_auto_falls_back_with_a_warning(archive, downloading, capsys):
    def download(folder):
        raise OSError("no route")

    downloading(download)
    folder, content = archive
    images = data.load("auto", folder)
    assert images.name == "synthetic"
    assert np.array_equal(images.test.numpy(), content["test"])
    with pytest.raises(DownloadError) as caught:
        data.load("mnist", folder)
    assert capsys.readouterr() == (
        "",
        "Warning: using the synthetic digits, whose bounds cannot be compared with MNIST's: "
        f"{caught.value}\n",
    )


@pytest.mark.slow
def test_synthetic_digits_are_drawn_once_and_kept(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    path = folder / "synthetic" / "digits-v1.npz"
    state = torch.get_rng_state()
    drawn = data.load("synthetic", folder)
    drawing = f"Drawing the synthetic digits, which are kept in {path}\n"
    assert capsys.readouterr() == ("", drawing)
    assert torch.equal(torch.get_rng_state(), state)
    kept = data.load("synthetic", folder)
    assert capsys.readouterr() == ("", "")
    assert equal(drawn, kept)
    assert files_below(tmp_path) == ["digits-v1.npz"]

    name, train, train_labels, test, test_labels = drawn
    assert name == kept.name == "synthetic"
    assert train.shape == (60000, 784)
    assert test.shape == (10000, 784)
    assert {x.dtype for x in drawn[1:]} == {torch.uint8}
    assert train_labels.bincount().tolist() == [6000] * 10
    assert test_labels.bincount().tolist() == TEST_COUNTS
    assert not torch.equal(train[train_labels == 0][:100], test[test_labels == 0][:100])
    # Other digits need another name than digits-v1, since folders keep what was drawn earlier.
    assert train_labels[:10].tolist() == [7, 3, 8, 9, 4, 1, 9, 1, 4, 4]
    assert test[:3].long().sum(1).tolist() == pytest.approx([18854, 30861, 16499], abs=50)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "too short"])
def test_damaged_synthetic_digits_are_drawn_again(
    tmp_path, synthetic_dir, synthetic_images, damage, capsys
):
    path = tmp_path / "synthetic" / "digits-v1.npz"
    path.parent.mkdir()
    if damage == "flipped":
        content = bytearray((synthetic_dir / "synthetic" / path.name).read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        short = synthetic_images._replace(test_labels=synthetic_images.test_labels[:-1])
        np.savez(path, **{field: getattr(short, field) for field in short._fields[1:]})
    assert equal(data.load("synthetic", tmp_path), synthetic_images)
    said = capsys.readouterr()
    assert said.out == ""
    damaged, drawing = said.err.splitlines()
    assert damaged.startswith(f"{path} is damaged (")
    assert drawing == f"Drawing the synthetic digits, which are kept in {path}"
    assert equal(data.load("synthetic", tmp_path), synthetic_images)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_synthetic_digits_are_all_different(synthetic_images):
    images = torch.cat([synthetic_images.train, synthetic_images.test])
    assert len(images.unique(dim=0)) == 70000


def table():
    lines = (line.split() for line in POSITIONS.strip().splitlines())
    return {int(digit.rstrip(":")): [*map(int, positions)] for digit, *positions in lines}


def test_the_assignments_images_are_at_the_assignments_positions():
    labels = torch.arange(10, dtype=torch.uint8).repeat_interleave(torch.tensor(TEST_COUNTS))
    labels = labels[torch.randperm(10000)]
    found = {digit: [] for digit in range(10)}
    for row, label in enumerate(labels.tolist()):
        found[label].append(row)
    rows = data.subset_rows(labels)
    assert rows.dtype == torch.int64
    assert rows.tolist() == [found[digit][i] for digit in range(10) for i in table()[digit]]


def test_the_assignments_images_of_mnist(mnist_dir):
    images = data.load("mnist", mnist_dir)
    rows = data.subset_rows(images.test_labels)
    assert images.test_labels[rows].tolist() == [digit for digit in range(10) for _ in range(10)]
    pixels = images.test[rows].numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest() == REPORT_SHA256
    # The assignment lists one image of a 5 twice.
    assert rows[55] == rows[56]
    assert len(rows.unique()) == 99


def test_binarize_draws_each_pixel_from_its_value():
    n, values = 20_000, torch.arange(256, dtype=torch.uint8)
    pixels = values.repeat(n, 1)
    draws = data.binarize(pixels)
    assert draws.shape == (n, 256)
    assert draws.dtype == torch.float32
    assert draws.unique().tolist() == [0, 1]
    assert torch.equal(pixels, values.expand(n, 256))
    assert not draws[:, 0].any()
    assert draws[:, 255].all()
    p = values.double()[1:255] / 255
    surprise = (draws[:, 1:255].double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    # Standard normal numbers, and were the levels 254 or 256 their slope would be far from 0.
    assert surprise.abs().max() < 5
    assert abs(surprise.mean()) < 4 / math.sqrt(254)
    assert abs((surprise * (p - 0.5) * math.sqrt(12)).mean()) < 4 / math.sqrt(254)


def test_binarize_draws_each_pixel_by_itself():
    draws = 2 * data.binarize(torch.full((4000, 60), 127, dtype=torch.uint8)) - 1
    for matrix in (draws, draws.T):
        products = matrix.T @ matrix / len(matrix)
        products.fill_diagonal_(0)
        assert products.abs().max() < 6 / math.sqrt(len(matrix))


@pytest.mark.parametrize("shape", [(784,), (3, 784), (2, 3, 784)])
def test_binarize_keeps_the_shape(shape):
    assert data.binarize(torch.zeros(shape, dtype=torch.uint8)).shape == shape


def test_binarize_draws_from_its_generator_alone():
    pixels = torch.randint(256, (50, 784), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = data.binarize(pixels, generator), data.binarize(pixels, generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)
    torch.manual_seed(2)
    generator.manual_seed(1)
    assert torch.equal(first, data.binarize(pixels, generator))
    assert torch.equal(second, data.binarize(pixels, generator=generator))


def test_binarize_draws_from_the_global_source_without_a_generator():
    pixels = torch.randint(256, (50, 784), dtype=torch.uint8)
    torch.manual_seed(1)
    first, second = data.binarize(pixels), data.binarize(pixels)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, data.binarize(pixels))
