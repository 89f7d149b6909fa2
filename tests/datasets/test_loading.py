"""Loading a data set: finding its files, refusing wrong ones, and falling back to another."""

import gzip
from dataclasses import astuple

import pytest
import torch
from conftest import FEWER
from few import FILES, NEEDED, are, no_route, write

from codebase.datasets import synthetic
from codebase.datasets.loading import load
from codebase.system.errors import DownloadError, UserError

pytest_plugins = "few"
ARCHIVE = gzip.compress(b"another file", mtime=0)


def test_an_unknown_name_is_refused_with_the_known_names(tmp_path):
    with pytest.raises(UserError, match=r"mnist or fashion.*'mnits'") as caught:
        load("mnits", tmp_path)
    assert caught.value.status == 2


# The last form is that of Kaggle's archive.
@pytest.mark.parametrize("form", ["{0}", "{0}.gz", "{1}", "{1}/{1}"])
@pytest.mark.parametrize("place", [".", "MNIST/raw", "a/b/c"])
def test_files_are_found_up_to_three_folders_deep(tmp_path, few, downloading, place, form, capsys):
    """Other files of the same names beside them are ignored."""
    names = [form.format(name, name.replace("-idx", ".idx")) for name in FILES]
    write(tmp_path / "another" / "set", [x + 1 for x in few], names)
    write(tmp_path / place, few, names)
    before = sorted(tmp_path.rglob("*"))
    if (place, form) == ("a/b/c", "{1}/{1}"):  # the fourth folder
        with pytest.raises(pytest.fail.Exception, match="a download was started"):
            load("auto", tmp_path)
        return
    for dataset in ("mnist", "auto"):
        images = load(dataset, tmp_path)
        assert images.name == "mnist" and are(images, few)
        assert images.train.dtype == images.test.dtype == torch.uint8
    assert sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"no archive", ARCHIVE, ARCHIVE[:-9], b""])
def test_a_damaged_archive_is_named_if_the_download_fails(tmp_path, few, downloading, content):
    """It may belong to another data set, so a download is tried first."""
    write(tmp_path, few, [f"{name}.gz" for name in FILES])
    path = tmp_path / f"{FILES[2]}.gz"
    path.write_bytes(content)
    downloading(no_route)
    with pytest.raises(UserError, match=f"{path} is damaged"):
        load("mnist", tmp_path)
    downloading(lambda folder: write(folder, few))
    assert are(load("mnist", tmp_path), few)
    assert path.read_bytes() == content


def test_a_damaged_file_does_not_hide_an_intact_one(tmp_path, raw, few, downloading):
    (raw / FILES[0]).write_bytes(b"damaged")
    write(tmp_path, few[:1], FILES[:1])
    assert are(load("mnist", tmp_path), few)


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", [lambda x: x[:-1] + b"?", lambda x: x[:-1], lambda x: b""])
def test_a_wrong_file_in_the_downloads_place_is_refused_and_not_overwritten(
    tmp_path, raw, dataset, name, damage, downloading
):
    path = raw / name
    content = damage(path.read_bytes())
    path.write_bytes(content)
    for other in {*FILES} - {name}:
        (raw / other).unlink()
    with pytest.raises(UserError, match=f"{path} is damaged.*delete it") as caught:
        load(dataset, tmp_path)
    assert not isinstance(caught.value, DownloadError)
    assert path.read_bytes() == content


def test_synthetic_digits_are_always_the_same_and_need_no_folder(
    tmp_path, synthetic_images, monkeypatch, downloading, capsys
):
    """They are in the place of MNIST, with a warning, if that cannot be had."""
    for name, counts in FEWER.items():
        monkeypatch.setattr(synthetic, name, counts)
    downloading(no_route)
    state = torch.get_rng_state()
    for dataset in ("synthetic", "auto"):
        images = load(dataset, tmp_path / "folder")
        assert images.name == "synthetic"
        assert all(map(torch.equal, astuple(images)[1:], astuple(synthetic_images)[1:]))
        output, errors = capsys.readouterr()
        assert output == "" and ("Warning: " in errors) == (dataset == "auto")
    assert "synthetic" in errors and "--data_dir" in errors
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_synthetic_digits_have_mnists_numbers_and_no_image_twice(all_synthetic_images):
    train, test = all_synthetic_images.train, all_synthetic_images.test
    assert train.shape == (60000, 784) and test.shape == (10000, 784)
    assert train.dtype == test.dtype == torch.uint8
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert all_synthetic_images.test_labels.bincount().tolist() == counts
    assert len({image.tobytes() for image in torch.cat([train, test]).numpy()}) == 70000
