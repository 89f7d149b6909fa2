"""The images: what is let in, what stands in, and the report's protocol."""

import os
import shutil

import pytest
import torch

from codebase import data, synthetic
from codebase.errors import DataError, DownloadError


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails as it does without a network."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there


@pytest.fixture
def own_mnist(mnist_dir, tmp_path):
    """A copy of MNIST that a test may damage, as a data folder."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in data.MNIST_FILES:
        shutil.copy(mnist_dir / "MNIST" / "raw" / name, folder)
    return tmp_path


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_mnist_is_read_as_torchvision_reads_it(mnist_dir):
    from torchvision.datasets import MNIST

    images = data.load("mnist", mnist_dir)
    for train, x, y in [
        (True, images.train, images.train_labels),
        (False, images.test, images.test_labels),
    ]:
        theirs = MNIST(mnist_dir, train=train)
        assert x.dtype == torch.uint8
        assert torch.equal(x, theirs.data.flatten(1))
        assert torch.equal(y.long(), theirs.targets)


def test_auto_is_mnist_where_it_is(mnist_dir, capsys):
    assert data.load("auto", mnist_dir).name == "mnist"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
@pytest.mark.parametrize("name", data.MNIST_FILES)
def test_a_damaged_file_is_named(own_mnist, dataset, name):
    path = own_mnist / "MNIST" / "raw" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged .* delete it"):
        data.load(dataset, own_mnist)


@pytest.mark.parametrize("damage", ["cut", "emptied", "swapped", "another set's"])
def test_other_files_of_the_right_name_are_refused(own_mnist, damage):
    folder = own_mnist / "MNIST" / "raw"
    path = folder / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "swapped":
        (folder / "train-images-idx3-ubyte").replace(path)
        (folder / "train-images-idx3-ubyte").write_bytes(content)
    else:  # Fashion-MNIST's files have the same header and size
        path.write_bytes(content[:16] + bytes(len(content) - 16))
    with pytest.raises(DataError, match="images-idx3-ubyte is damaged or not MNIST's"):
        data.load("mnist", own_mnist)


def test_a_failed_download_gives_the_reason_and_leaves_nothing(tmp_path, no_network):
    with pytest.raises(DownloadError) as caught:
        data.load("mnist", tmp_path)
    message = str(caught.value)
    assert "Connection refused" in message
    assert "train-images-idx3-ubyte" in message
    assert "--dataset synthetic" in message
    assert str(tmp_path / "MNIST" / "raw") in message
    assert files_below(tmp_path) == []


def test_a_broken_off_download_leaves_nothing(tmp_path, monkeypatch):
    import torchvision

    def break_off(self):
        os.makedirs(self.raw_folder)
        with open(os.path.join(self.raw_folder, "train-images-idx3-ubyte"), "wb") as file:
            file.write(b"half")
        raise RuntimeError("Error downloading:\nTried a mirror, got:\nConnection reset")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", break_off)
    with pytest.raises(DownloadError, match=r"\(Connection reset\)"):
        data.load("mnist", tmp_path)
    assert files_below(tmp_path) == []


def test_a_download_arrives_in_its_place(mnist_dir, tmp_path, monkeypatch):
    import torchvision

    def download(self):
        shutil.copytree(mnist_dir / "MNIST" / "raw", self.raw_folder)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    assert data.load("auto", tmp_path).name == "mnist"
    assert files_below(tmp_path) == sorted(data.MNIST_FILES)


def test_auto_falls_back_with_a_warning(synthetic_dir, no_network, capsys):
    assert data.load("auto", synthetic_dir).name == "synthetic"
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("Warning: using the synthetic digits")
    assert "cannot be compared with MNIST's" in warning
    assert "Connection refused" in warning


def test_synthetic_digits_are_like_mnist_in_shape_and_all_different(synthetic_images):
    name, train, train_labels, test, test_labels = synthetic_images
    assert name == "synthetic"
    assert train.shape == (60000, 784)
    assert test.shape == (10000, 784)
    assert train.dtype == test.dtype == torch.uint8
    assert test_labels.bincount().tolist() == synthetic.TEST_COUNTS
    assert train_labels.bincount().tolist() == synthetic.TRAIN_COUNTS
    assert len(torch.cat([train, test]).unique(dim=0)) == 70000
    # No digit touches the border, and none is only a speck.
    assert (train.view(-1, 28, 28)[:, [0, -1]] == 0).float().mean() > 0.99
    assert train.sum(1).min() > 20 * 255


def test_synthetic_digits_can_be_told_apart(synthetic_images):
    """The nearest of ten class means names most test images, as it does for MNIST (82 %)."""
    _, train, train_labels, test, test_labels = synthetic_images
    means = torch.stack([train[train_labels == d].float().mean(0) for d in range(10)])
    nearest = torch.cdist(test.float(), means).argmin(1)
    assert (nearest == test_labels).float().mean() > 0.8


def test_synthetic_digits_are_deterministic():
    draws = [
        synthetic.draw_digits([3] * 10, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])


def test_synthetic_digits_are_kept_and_damage_is_repaired(tmp_path, synthetic_dir, monkeypatch):
    archive = tmp_path / "synthetic" / "digits-v1.npz"
    shutil.copytree(synthetic_dir / "synthetic", archive.parent)
    monkeypatch.setattr(synthetic, "draw_digits", None)  # must not be called
    kept = data.load("synthetic", tmp_path)
    monkeypatch.undo()
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    repaired = data.load("synthetic", tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(kept[1:], repaired[1:], strict=True))
    assert archive.read_bytes() != content


def test_the_reports_images_are_ten_of_each_digit(synthetic_images):
    labels = synthetic_images.test_labels
    rows = data.report_rows(labels)
    assert labels[rows].tolist() == [digit for digit in range(10) for _ in range(10)]
    # The second of digit 3 is the 178th three of the file, counted from one.
    assert rows[31] == (labels == 3).nonzero()[177]


def test_the_reports_images_of_mnist(mnist_dir):
    labels = data.load_mnist(mnist_dir).test_labels
    rows = data.report_rows(labels)
    # Digit 9 position 1000 is among the last of the file; the two equal positions are one image.
    assert labels[rows].bincount().tolist() == [10] * 10
    assert rows[55] == rows[56]
    assert len(rows.unique()) == 99


def test_binarize_draws_each_pixel_from_its_value():
    values = torch.arange(256, dtype=torch.uint8)
    draws = data.binarize(values.expand(20_000, 256))
    assert draws.dtype == torch.float32
    assert set(draws.unique().tolist()) == {0, 1}
    assert not draws[:, 0].any()
    assert draws[:, 255].all()
    torch.testing.assert_close(draws.mean(0), values / 255, rtol=0, atol=0.02)
    generator = torch.Generator().manual_seed(1)
    first, second = data.binarize(values, generator), data.binarize(values, generator)
    assert not torch.equal(first, second)
    assert torch.equal(first, data.binarize(values, generator.manual_seed(1)))
