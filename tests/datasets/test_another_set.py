"""Another data set, which an entry in the table adds, has its own name everywhere."""

import hashlib
from pathlib import Path

import pytest
import torch
from conftest import OFFLINE

from codebase.data import DATASETS, DOWNLOADS
from codebase.datasets.loading import load
from codebase.system.errors import DownloadError, UserError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SIZES = (30, 20)


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """The folder of the files of a small data set of clothes, which the table has."""
    folder = tmp_path / "data" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    contents = []
    for n in SIZES:
        images, labels = torch.randint(256, (n, 784)), torch.arange(n) % 10
        contents += [
            bytes(16) + bytes(images.flatten().tolist()),
            bytes(8) + bytes(labels.tolist()),
        ]
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_bytes(content)
    sums = [hashlib.md5(content).hexdigest() for content in contents]
    monkeypatch.setitem(DOWNLOADS, "fashion", ("FashionMNIST", *sums))
    monkeypatch.setattr("codebase.datasets.loading.DATASETS", (*DATASETS, "fashion"))
    return folder


def test_a_damaged_file_is_not_one_of_its_class(raw, tmp_path):
    (raw / FILES[0]).write_bytes(b"damaged")
    with pytest.raises(UserError) as caught:
        load("fashion", tmp_path / "data")
    sentence = f"{raw / FILES[0]} is damaged or not FashionMNIST's {FILES[0]} ("
    assert str(caught.value).startswith(sentence)


def test_where_it_cannot_be_had_nothing_stands_in_for_it(raw, tmp_path, monkeypatch):
    for name, nowhere in OFFLINE.items():
        monkeypatch.setenv(name, nowhere)
    for name in FILES:
        (raw / name).unlink()
    with pytest.raises(DownloadError) as caught:
        load("fashion", tmp_path / "data")
    assert str(caught.value).startswith(f"FashionMNIST is not in {raw} and could not be downloaded")


@pytest.mark.slow
def test_a_run_on_it_is_named_after_it_and_no_assignments(raw, run_vae):
    arguments = ("--nn", "tiny", "--z", 2, "--batch_size", 5, "--iter_max", 2)
    finished = run_vae("--dataset", "fashion", *arguments)
    assert finished.returncode == 0, finished.stderr
    name = "model=vae_nn=tiny_z=02_batch_size=5_dataset=fashion_run=0000"
    assert f"Model name: {name}\n" in finished.stdout
    assert "Data: fashion, 30 training and 20 test images\n" in finished.stdout
    bounds = [line for line in finished.stdout.splitlines() if line.startswith("NELBO: ")]
    ends = ["(fashion, 100 test images)", "(fashion, all 20 test images)"]
    assert [line.split("  ")[-1].strip() for line in bounds] == ends
    assert [str(path) for path in Path().rglob("*.png")] == [
        f"checkpoints/{name}/visualizing_result.png"
    ]
