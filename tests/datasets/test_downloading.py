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
def test_a_download_is_checked_and_arrives_in_torchvisions_folder(
    tmp_path, few, downloading, dataset
):
    folder = tmp_path / "new" / "folder"
    downloading(lambda folder: write(folder, few))
    images = load(dataset, folder)
    assert images.name == "mnist" and are(images, few)
    assert files_below(tmp_path) == files_below(folder / "MNIST" / "raw") == sorted(FILES)
    downloading(lambda folder: write(folder, [x + 1 for x in few]))
    with pytest.raises(UserError, match=f"{FILES[0]} is damaged"):
        load(dataset, tmp_path / "other")


def test_a_download_does_not_use_standard_output_or_wait_forever(tmp_path, downloading, capsys):
    seen = []

    def download(folder):
        seen.append((socket.getdefaulttimeout(), folder))
        print("100%")
        raise OSError("no")

    downloading(download)
    socket.setdefaulttimeout(None)
    with pytest.raises(DownloadError):
        load("mnist", tmp_path)
    assert socket.getdefaulttimeout() is None
    ((timeout, folder),) = seen
    assert 5 <= timeout <= 60
    assert capsys.readouterr() == ("", "100%\n")
    # If the download is interrupted now, nothing remains in the data folder.
    assert tmp_path not in folder.parents


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error downloading:\nTried a mirror, got:\nConnection reset\n"),
        URLError("Connection reset"),
        http.client.HTTPException(),  # It has no text, so its name is shown.
    ],
)
def test_a_failed_download_gives_the_reason_and_leaves_no_file(tmp_path, few, downloading, error):
    def fail(folder):
        write(folder, few)
        raise error

    downloading(fail)
    with pytest.raises(DownloadError) as caught:
        load("mnist", tmp_path / "new")
    message = str(caught.value)
    assert ("Connection reset)" if str(error) else "HTTPException()") in message
    assert f"{tmp_path}/new/MNIST/raw" in message and "--dataset synthetic" in message
    assert all(name in message for name in NEEDED) and "\n" not in message
    assert files_below(tmp_path) == []


def test_a_download_without_torchvision_is_refused(tmp_path, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DownloadError, match="torchvision"):
        load("mnist", tmp_path)
