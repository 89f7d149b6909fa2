"""Files are there whole or not at all."""

import csv
import os

import pytest

from codebase.system.files import write_atomically, write_table


def test_content_arrives_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new\r\n\n\0"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_names_it_and_leaves_no_other(tmp_path, monkeypatch, call):
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


def test_where_nothing_can_be_written_or_removed_the_file_is_named(tmp_path, monkeypatch):
    """As on a file system that can only be read."""

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", "another file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        write_atomically(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    """Else a power cut could leave the name on an empty file."""
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


def test_a_table_is_csv_of_any_cells(tmp_path):
    path = tmp_path / "table.csv"
    rows = [("step", "images"), (1, 'a comma, a "quote"'), (0.1 + 0.2, "é")]
    write_table(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [[str(cell) for cell in row] for row in rows]
    assert path.read_bytes().count(b"\n") == 3
    assert b"\r" not in path.read_bytes()


def test_a_table_that_fails_keeps_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [("old",)])

    def rows():
        yield ("new",)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_table(path, rows())
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["table.csv"]
