"""Files are written whole or not at all."""

import csv
import errno
import os
import time

import pytest

from codebase.system.files import write_atomically, write_csv


def test_a_file_has_the_content_and_no_file_remains_beside_it(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new\r\n\n\0"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_names_it(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (28, str(path))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN, errno.ESTALE])
@pytest.mark.parametrize("times", [3, 10**6])
def test_a_refused_name_is_tried_again_for_a_second(tmp_path, monkeypatch, number, times):
    """Virus scanners on Windows and file systems on a network refuse for a moment."""
    path, calls, replace = tmp_path / "file", [], os.replace

    def refuse(*names):
        calls.append(names)
        if len(calls) <= times:
            raise OSError(number, "refused")
        replace(*names)

    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(os, "replace", refuse)
    if times == 3:
        write_atomically(path, b"new")
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(OSError, match="refused"):
            write_atomically(path, b"new")
        assert 1 <= sum(pauses) < 1.5
        assert os.listdir(tmp_path) == []


def test_processes_of_the_same_number_use_different_temporary_files(tmp_path, monkeypatch):
    """Processes in two containers may share a folder and a number."""
    names, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: names.append(paths[0]) or replace(*paths))
    for _ in range(2):
        write_atomically(tmp_path / "file", b"")
    assert names[0] != names[1]


def test_a_read_only_file_system_is_an_error_that_names_the_file(tmp_path, monkeypatch):

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", "another file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        write_atomically(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    """Otherwise a power cut could leave an empty file of that name."""
    path, synced = tmp_path / "file", []
    write_atomically(path, b"old")
    fsync = os.fsync

    def watched(descriptor):
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(path, b"longer")
    assert synced == [(6, b"old")]


def test_an_absent_folder_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, b"content")
    assert caught.value.filename == str(path)


def test_csv_holds_any_cells(tmp_path):
    path = tmp_path / "table.csv"
    rows = [("step", "images"), (1, 'a comma, a "quote"'), (0.1 + 0.2, "é")]
    write_csv(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [[str(cell) for cell in row] for row in rows]
    assert path.read_bytes().count(b"\n") == 3
    assert b"\r" not in path.read_bytes()


def test_a_failed_csv_keeps_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [("old",)])

    def rows():
        yield ("new",)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_csv(path, rows())
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["table.csv"]
