"""Loading a data set: what is let in, and what stands in for it."""

import gzip
import hashlib

import pytest
import torch
from few import FILES, are, idx, write

from codebase.data import DOWNLOADS
from codebase.datasets.loading import load, load_downloaded
from codebase.system.errors import DownloadError, UserError

TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


pytest_plugins = "few"


@pytest.fixture
def no_downloading(downloading):
    downloading(lambda folder: pytest.fail("asked"))


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
    downloading(lambda folder: write(folder, fashion), "FashionMNIST")
    assert are(load_downloaded("fashion", tmp_path), fashion)
    assert are(load("mnist", tmp_path), few)


def test_a_sound_file_counts_wherever_a_damaged_one_is(tmp_path, raw, few, no_downloading):
    (raw / FILES[0]).write_bytes(b"damaged")
    (tmp_path / FILES[0]).write_bytes(idx(few[0]))
    assert are(load("mnist", tmp_path), few)


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


# What stands in.


@pytest.mark.slow
def test_auto_falls_back_with_a_warning(tmp_path, all_synthetic_images, downloading, capsys):
    def download(folder):
        raise OSError("no route")

    downloading(download)
    images = load("auto", tmp_path)
    assert images.name == "synthetic"
    assert all(map(torch.equal, images[1:], all_synthetic_images[1:]))
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path)
    assert capsys.readouterr() == (
        "",
        "Warning: using the synthetic digits, whose bounds cannot be compared with MNIST's: "
        f"{caught.value}\n",
    )


@pytest.mark.slow
def test_synthetic_digits_are_always_the_same_and_need_no_folder(
    tmp_path, all_synthetic_images, capsys
):
    state = torch.get_rng_state()
    images = load("synthetic", tmp_path / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert images.name == "synthetic"
    assert all(map(torch.equal, images[1:], all_synthetic_images[1:]))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_synthetic_digits_have_mnists_shape(all_synthetic_images):
    name, train, train_labels, test, test_labels = all_synthetic_images
    assert name == "synthetic"
    assert train.shape == (60000, 784)
    assert test.shape == (10000, 784)
    assert {x.dtype for x in all_synthetic_images[1:]} == {torch.uint8}
    assert train_labels.bincount().tolist() == [6000] * 10
    assert test_labels.bincount().tolist() == TEST_COUNTS
    assert not torch.equal(train[train_labels == 0][:100], test[test_labels == 0][:100])
