"""Another data set, which an entry in the table DOWNLOADS adds."""

from pathlib import Path

import pytest
from conftest import OFFLINE
from few import add_data_set, are, random_images, replace_download, write

from codebase.datasets.loading import load
from codebase.system.errors import DownloadError

pytest_plugins = "few"


@pytest.fixture
def clothes(monkeypatch):
    """The images of a data set named "fashion", which is in the table."""
    tensors = random_images(30, 20)
    add_data_set(monkeypatch, "fashion", "FashionMNIST", tensors)
    return tensors


def test_data_sets_in_one_folder_are_told_apart_by_their_md5_sums(
    tmp_path, few, clothes, monkeypatch
):
    write(tmp_path, few)
    replace_download(monkeypatch, lambda folder: write(folder, clothes), "FashionMNIST")
    for _ in range(2):  # downloaded, then found
        images = load("fashion", tmp_path)
        assert images.name == "fashion"
        assert are(images, clothes)
    assert are(load("mnist", tmp_path), few)


def test_synthetic_digits_do_not_replace_another_data_set(tmp_path, clothes, monkeypatch):
    for name, nowhere in OFFLINE.items():
        monkeypatch.setenv(name, nowhere)
    with pytest.raises(DownloadError, match="FashionMNIST"):
        load("fashion", tmp_path)


@pytest.mark.slow
def test_the_name_of_the_data_set_is_in_the_run_and_its_report(clothes, run_vae):
    write(Path("data"), clothes)
    arguments = ("--nn", "tiny", "--z", 2, "--batch_size", 5, "--iter_max", 2)
    finished = run_vae("--dataset", "fashion", *arguments)
    assert finished.returncode == 0, finished.stderr
    name = "model=vae_nn=tiny_z=02_batch_size=5_dataset=fashion_run=0000"
    assert f"Model name: {name}\n" in finished.stdout
    assert "Data: fashion, 30 training and 20 test images\n" in finished.stdout
    bounds = [line for line in finished.stdout.splitlines() if line.startswith("NELBO: ")]
    ends = ["(fashion, 100 test images)", "(fashion, all 20 test images)"]
    assert [line.split("  ")[-1].strip() for line in bounds] == ends
    # The assignment's picture is only for the assignment's settings.
    assert [str(path) for path in Path().rglob("*.png")] == [
        f"checkpoints/{name}/visualizing_result.png"
    ]
