"""A run's folder: its files, its lock, and where an earlier run goes."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from training import TINY, hold, load_small, settle, train_small

from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.settings import Settings
from codebase.system.errors import UserError

RUN = RunFolder(Settings())


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_files_have_the_names_of_the_assignment():
    assert RUN.path == Path("checkpoints/model=vae_z=10_run=0000")
    assert RUN.model(20000) == RUN.path / "model-20000.pt"
    assert RUN.model(30) == RUN.path / "model-00030.pt"
    assert RUN.state == RUN.path / "training-state.pt"


def test_steps_are_listed_in_rising_order():
    assert RUN.saved_steps() == []
    RUN.path.mkdir(parents=True)
    for step in (100000, 20, 10000):
        RUN.model(step).touch()
    for other in (".model-00030.pt", "model-best.pt", "model-30.pt", "model-00030.pt.bak"):
        (RUN.path / other).touch()
    assert RUN.saved_steps() == [20, 10000, 100000]


# Which runs share a folder.


def test_linear_runs_of_different_lengths_have_different_folders(tmp_path, monkeypatch, stray):
    """After 20 steps, the longer run differs from the shorter one."""
    settle(tmp_path, monkeypatch)
    longer = TINY._replace(lr_schedule="linear", iter_max=40)
    shorter = longer._replace(iter_max=20)
    trained = [train_small(settings, iter_save=20) for settings in (longer, shorter)]
    folders = RunFolder(longer), RunFolder(shorter)
    assert {path for path in CHECKPOINTS.iterdir() if path.is_dir()} == {f.path for f in folders}
    for settings, model in zip((longer, shorter), trained, strict=True):
        assert torch.equal(load_small(settings).dec.net.bias, model.dec.net.bias)
    middle, end = (torch.load(folder.model(20)) for folder in folders)
    assert not torch.equal(middle["dec.net.bias"], end["dec.net.bias"])
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_small(longer._replace(iter_max=10))


def test_constant_runs_of_different_lengths_share_a_folder(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)
    shorter, longer = TINY._replace(iter_max=20), TINY._replace(iter_max=40)
    train_small(longer, iter_save=20)
    middle = load_small(shorter)
    assert torch.equal(middle.dec.net.bias, train_small(shorter).dec.net.bias)
    assert RunFolder(shorter).path == RunFolder(longer).path


# The lock.


def test_only_one_process_trains_in_a_folder():
    with pytest.raises(ZeroDivisionError), RUN.lock():
        assert list(RUN.path.iterdir()) == []
        (RUN.path / "file").touch()
        with pytest.raises(UserError, match=f"another process .* {RUN.path}"), RUN.lock():
            pass
        with RunFolder(Settings(run=1)).lock():
            pass
        raise ZeroDivisionError
    with RUN.lock():
        assert [file.name for file in RUN.path.iterdir()] == ["file"]


def test_the_lock_of_another_process_holds_until_it_dies(start):
    holder = hold(start, RUN)
    with pytest.raises(UserError, match="another"), RUN.lock():
        pass
    holder.kill()
    holder.wait()
    with RUN.lock():
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_warning_is_printed_where_the_file_system_has_no_locks(monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with RUN.lock():
        RUN.model(1).touch()
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("Warning: ") and "without locks" in errors
    assert RUN.saved_steps() == [1]


def test_a_folder_stays_locked_while_it_is_moved():
    with RUN.lock():
        RUN.model(1).touch()
        assert RUN.move_aside()
        with pytest.raises(UserError, match="another"), RUN.lock():
            pass


def test_a_file_in_the_place_of_a_folder_raises_an_os_error():
    CHECKPOINTS.mkdir()
    RUN.path.touch()
    with pytest.raises(FileExistsError), RUN.lock():
        pass
    with pytest.raises(FileExistsError), RunFolder(Settings(), RUN.path).lock():
        pass


# An earlier run.


def test_a_used_folder_is_moved_to_the_first_free_name():
    RUN.path.mkdir(parents=True)
    (RUN.path / "notes").touch()
    RUN.metrics.touch()
    assert not RUN.is_used()
    assert RUN.move_aside() is None
    assert {*os.listdir(RUN.path)} == {"notes", "metrics.csv"}

    places = [RUN.path.with_name(f"{RUN.path.name}.{number}") for number in range(5)]
    places[2].write_text("a file")
    places[3].symlink_to("nowhere")
    for number, saved in [(1, "model-00020.pt"), (4, "training-state.pt")]:
        (RUN.path / saved).write_text(saved)
        assert RUN.is_used()
        assert RUN.move_aside() == places[number]
        assert (places[number] / saved).read_text() == saved
        assert list(RUN.path.iterdir()) == []
    assert (places[1] / "notes").exists()
    assert places[2].read_text() == "a file"
    assert places[3].is_symlink()
    shutil.rmtree(places[1])
    RUN.state.touch()
    assert RUN.move_aside() == places[1]
    assert not RunFolder(Settings(run=1)).is_used()
