"""Downloading a data set: into its place and nowhere else, and why it does not arrive."""

import errno
import http.client
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import pytest
from few import FILES, are, files_below, write

from codebase.datasets.loading import load
from codebase.system.errors import DownloadError, UserError

pytest_plugins = "few"


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


def test_where_there_are_no_locks_it_is_downloaded_too(
    tmp_path, few, downloading, monkeypatch, capsys
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    downloading(lambda folder: write(folder, few))
    assert are(load("auto", tmp_path), few)
    assert "on a file system without locks" in capsys.readouterr().err


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
