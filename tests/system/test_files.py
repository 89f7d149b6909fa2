"""Files are written whole or not at all."""

import csv
import errno
import os
import time
from unittest.mock import Mock

import pytest

from codebase.system.files import write_atomically, write_csv


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "builtins.open"])
def test_a_failed_write_keeps_the_old_file_and_names_it(path, monkeypatch, call):
    refuse = Mock(side_effect=OSError(28, "No space left on device", "another file"))
    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        if call == "builtins.open":  # a read-only file system
            patch.setattr("os.unlink", refuse)
        with pytest.raises(OSError, match="No space") as caught:
            write_atomically(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (28, str(path))
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN, errno.ESTALE])
def test_a_refused_name_is_tried_again_for_a_second(path, monkeypatch, number):
    """Virus scanners on Windows and file systems on a network refuse for a moment."""
    refusal, pauses = OSError(number, "refused"), []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(os, "replace", Mock(side_effect=[refusal] * 3 + [None]))
    write_atomically(path, b"new")
    assert os.replace.call_count == 4
    pauses.clear()
    monkeypatch.setattr(os, "replace", Mock(side_effect=refusal))
    with pytest.raises(OSError, match="refused"):
        write_atomically(path, b"new")
    assert 1 <= sum(pauses) < 1.5
    assert path.read_bytes() == b"old"


def test_the_content_is_on_the_disk_before_the_file_has_its_name(path, monkeypatch):
    """Otherwise a power cut could leave an empty file of that name.

    Processes in two containers may share a folder and a number, so the names differ.
    """
    synced, names, fsync, replace = [], set(), os.fsync, os.replace

    def watched(descriptor):
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", lambda a, b: names.add(a.name) or replace(a, b))
    for content in (b"longer", b"n\r\n"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert synced == [(6, b"old"), (3, b"longer")]
    assert len(names) == 2
    # Resuming deletes such files.
    assert all(name.startswith(".") and name.endswith(".tmp") for name in names)


def test_csv_holds_any_cells(path):
    rows = [("step", "images"), (1, 'a comma, a "quote"'), (0.1 + 0.2, "é")]
    write_csv(path, rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [[str(cell) for cell in row] for row in rows]
    assert b"\r" not in path.read_bytes()
