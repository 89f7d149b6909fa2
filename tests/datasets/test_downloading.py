"""Downloading a data set: its place, its check, and the reasons of failures."""

import http.client
import socket
import sys
from urllib.error import URLError

import pytest
from few import FILES, NEEDED, are, files_below, write

from codebase.datasets.loading import load
from codebase.system.errors import DownloadError, UserError

pytest_plugins = "few"


@pytest.mark.parametrize("missing", NEEDED)
def test_all_files_are_downloaded_if_one_is_missing(tmp_path, raw, few, downloading, missing):
    (raw / missing).unlink()
    downloading(lambda folder: write(folder, few))
    assert are(load("mnist", tmp_path), few)


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_a_download_arrives_in_torchvisions_folder(tmp_path, few, downloading, dataset):
    downloading(lambda folder: write(folder, few))
    images = load(dataset, tmp_path / "new" / "folder")
    assert images.name == "mnist"
    assert are(images, few)
    assert files_below(tmp_path) == sorted(FILES)
    assert files_below(tmp_path / "new" / "folder" / "MNIST" / "raw") == sorted(FILES)


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_a_download_is_checked(tmp_path, few, downloading, dataset):
    downloading(lambda folder: write(folder, [x + 1 for x in few]))
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged"):
        load(dataset, tmp_path)


@pytest.mark.parametrize("usual", [None, 7.0])
def test_a_download_does_not_use_standard_output_or_wait_forever(
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
    # If the process is killed now, nothing remains in the data folder.
    assert tmp_path not in folders[0].parents


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
def test_a_failed_download_gives_the_reason_and_leaves_no_file(
    tmp_path, few, downloading, error, reason
):
    def fail(folder):
        write(folder, few)
        raise error

    downloading(fail)
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path / "new" / "folder")
    message = str(caught.value)
    assert f"({reason or 'Connection reset'})" in message
    assert f"{tmp_path}/new/folder/MNIST/raw" in message
    assert all(name in message for name in NEEDED)
    assert "--dataset synthetic" in message
    assert "\n" not in message
    assert caught.value.__cause__ is error
    assert files_below(tmp_path) == []


def test_a_download_without_torchvision_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DownloadError, match=r"could not be downloaded \(.*torchvision.*\)"):
        load("mnist", tmp_path)


def test_an_interrupted_download_leaves_no_file_and_raises_the_interrupt(
    tmp_path, few, downloading
):
    def interrupt(folder):
        write(folder, few)
        raise KeyboardInterrupt

    downloading(interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("auto", tmp_path)
    assert files_below(tmp_path) == []
