"""Loading a data set: finding its files, refusing wrong ones, and falling back to another."""

import gzip
from dataclasses import astuple

import pytest
import torch
from few import FILES, NEEDED, are, idx, write

from codebase.datasets.loading import load
from codebase.system.errors import DownloadError, UserError

TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

pytest_plugins = "few"


# Finding files.


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_existing_files_are_read_and_not_downloaded(
    tmp_path, raw, few, dataset, no_downloading, capsys
):
    images = load(dataset, tmp_path)
    assert images.name == "mnist"
    assert images.train.shape == (5, 784)
    assert images.test.shape == (3, 784)
    assert images.train.dtype == images.test.dtype == torch.uint8
    assert are(images, few)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_mnist_is_read_as_torchvision_reads_it(mnist_dir):
    from torchvision.datasets import MNIST

    images = load("mnist", mnist_dir)
    assert images.name == "mnist"
    train, test = (MNIST(mnist_dir, train=train) for train in (True, False))
    assert images.train.shape == (60000, 784)
    assert torch.equal(images.train, train.data.flatten(1))
    assert torch.equal(images.test, test.data.flatten(1))
    assert torch.equal(images.test_labels, test.targets)
    assert images.test_labels.bincount().tolist() == TEST_COUNTS


def test_an_unknown_name_is_refused_with_the_known_names(tmp_path):
    with pytest.raises(UserError, match=r"mnist or fashion.*, not 'mnits'") as caught:
        load("mnits", tmp_path)
    assert caught.value.status == 2


def plain(folder, name, content):
    (folder / name).write_bytes(content)


def packed(folder, name, content):
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def with_a_dot(folder, name, content):
    (folder / name.replace("-idx", ".idx")).write_bytes(content)


def in_a_folder_of_its_name(folder, name, content):
    """Kaggle's archive has such folders."""
    name = name.replace("-idx", ".idx")
    (folder / name).mkdir()
    (folder / name / name).write_bytes(content)


@pytest.mark.parametrize("place", [".", "MNIST/raw", "some/other", "a/b/c"])
@pytest.mark.parametrize("put", [plain, packed, with_a_dot, in_a_folder_of_its_name])
def test_files_are_found_up_to_three_folders_deep(tmp_path, few, no_downloading, place, put):
    """Other files of the same names beside them are ignored."""
    folder, others = tmp_path / place, tmp_path / "another" / "set"
    for files, tensors in ((others, [x + 1 for x in few]), (folder, few)):
        files.mkdir(parents=True, exist_ok=True)
        for name, values in zip(FILES, tensors, strict=True):
            put(files, name, idx(values))
    before = sorted(tmp_path.rglob("*"))
    if (place, put) == ("a/b/c", in_a_folder_of_its_name):  # the fourth folder
        with pytest.raises(pytest.fail.Exception, match="a download was started"):
            load("auto", tmp_path)
    else:
        assert are(load("auto", tmp_path), few)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"no archive", gzip.compress(b"another file"), b""], ids=["no", "another", "empty"]
)
def test_a_damaged_archive_is_named_if_the_download_fails(tmp_path, few, downloading, content):
    """It may belong to another data set, so a download is tried first."""

    def download(folder):
        raise OSError("no route")

    for name, values in zip(FILES, few, strict=True):
        packed(tmp_path, name, idx(values))
    path = tmp_path / f"{FILES[2]}.gz"
    path.write_bytes(content)
    downloading(download)
    with pytest.raises(UserError, match=f"{path} is damaged"):
        load("mnist", tmp_path)
    downloading(lambda folder: write(folder, few))
    assert are(load("mnist", tmp_path), few)
    assert path.read_bytes() == content


def test_a_damaged_file_does_not_hide_an_intact_one(tmp_path, raw, few, no_downloading):
    (raw / FILES[0]).write_bytes(b"damaged")
    plain(tmp_path, FILES[0], idx(few[0]))
    assert are(load("mnist", tmp_path), few)


# Refusing files.


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("name", NEEDED)
def test_a_wrong_file_in_the_downloads_place_is_refused_and_not_overwritten(
    tmp_path, raw, dataset, name, no_downloading
):
    path = raw / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for missing in ((), set(FILES) - {name}):
        for other in missing:
            (raw / other).unlink()
        with pytest.raises(UserError, match=f"{path} is damaged.*; delete it") as caught:
            load(dataset, tmp_path)
        assert not isinstance(caught.value, DownloadError)
        assert path.read_bytes() == content


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
    with pytest.raises(UserError, match="images-idx3-ubyte is damaged"):
        load("mnist", tmp_path)


# Synthetic digits.


@pytest.mark.slow
def test_auto_falls_back_to_synthetic_digits_with_a_warning(
    tmp_path, all_synthetic_images, downloading, capsys
):
    def download(folder):
        raise OSError("no route")

    downloading(download)
    images = load("auto", tmp_path)
    assert images.name == "synthetic"
    assert all(map(torch.equal, astuple(images)[1:], astuple(all_synthetic_images)[1:]))
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("Warning: ") and "synthetic" in errors


@pytest.mark.slow
def test_synthetic_digits_are_always_the_same_and_need_no_folder(
    tmp_path, all_synthetic_images, capsys
):
    state = torch.get_rng_state()
    images = load("synthetic", tmp_path / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert images.name == "synthetic"
    assert all(map(torch.equal, astuple(images)[1:], astuple(all_synthetic_images)[1:]))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_synthetic_digits_have_mnists_shape(all_synthetic_images):
    name, train, test, test_labels, _ = astuple(all_synthetic_images)
    assert name == "synthetic"
    assert train.shape == (60000, 784)
    assert test.shape == (10000, 784)
    assert train.dtype == test.dtype == torch.uint8
    assert test_labels.bincount().tolist() == TEST_COUNTS
    assert not torch.equal(train[:100], test[:100])
