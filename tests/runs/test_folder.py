"""A run's folder: where it is, who may write into it, and where an earlier run goes."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from training import TINY, hold, load_small, settle, train_small

from codebase.runs.folder import (
    CHECKPOINTS,
    is_used,
    locked,
    model_path,
    move_aside,
    run_folder,
    saved_steps,
    state_path,
)
from codebase.settings import Settings
from codebase.system.errors import BusyError, CheckpointError


def test_the_places_are_those_of_the_report():
    folder = run_folder(Settings())
    assert folder == Path("checkpoints/model=vae_z=10_run=0000")
    assert model_path(folder, 20000) == folder / "model-20000.pt"
    assert model_path(folder, 30) == folder / "model-00030.pt"
    assert state_path(folder) == folder / "training-state.pt"


def test_steps_are_listed_in_rising_order(tmp_path):
    for step in (100000, 20, 10000):
        model_path(tmp_path, step).touch()
    for other in (".model-00030.pt", "model-best.pt", "model-30.pt", "model-00030.pt.bak"):
        (tmp_path / other).touch()
    assert saved_steps(tmp_path) == [20, 10000, 100000]
    assert saved_steps(tmp_path / "nowhere") == []


# Which runs share a folder.


def test_linear_runs_of_different_lengths_have_folders_of_their_own(tmp_path, monkeypatch, stray):
    """What one has after 20 steps is not what the other ends with."""
    settle(tmp_path, monkeypatch)
    longer = TINY._replace(lr_schedule="linear", iter_max=40)
    shorter = longer._replace(iter_max=20)
    trained = [train_small(settings, iter_save=20) for settings in (longer, shorter)]
    assert sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir()) == sorted(
        map(run_folder, (longer, shorter))
    )
    for settings, model in zip((longer, shorter), trained, strict=True):
        assert torch.equal(load_small(settings).dec.net.bias, model.dec.net.bias)
    middle, end = (
        torch.load(model_path(run_folder(settings), 20)) for settings in (longer, shorter)
    )
    assert not torch.equal(middle["dec.net.bias"], end["dec.net.bias"])
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_small(longer._replace(iter_max=10))


def test_constant_runs_of_different_lengths_share_a_folder(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)
    train_small(TINY._replace(iter_max=40), iter_save=20)
    middle = load_small(TINY._replace(iter_max=20))
    alone = train_small(TINY._replace(iter_max=20))
    assert torch.equal(middle.dec.net.bias, alone.dec.net.bias)
    assert run_folder(TINY._replace(iter_max=20)) == run_folder(TINY._replace(iter_max=40))


# Who may write.


def test_one_process_trains_in_a_folder(tmp_path):
    folder = tmp_path / "checkpoints" / "run"
    with pytest.raises(ZeroDivisionError), locked(folder):
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        with (
            pytest.raises(BusyError, match=f"another process is training in {folder}; wait for"),
            locked(folder),
        ):
            pass
        with locked(folder.with_name("other")):
            pass
        raise ZeroDivisionError
    with locked(folder):
        assert [file.name for file in folder.iterdir()] == ["file"]


def test_the_lock_of_another_process_holds_until_it_dies(tmp_path, start):
    folder = tmp_path / "run"
    holder = hold(start, folder)
    with pytest.raises(BusyError), locked(folder):
        pass
    holder.kill()
    holder.wait()
    with locked(folder):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_a_sentence_says_so(
    tmp_path, monkeypatch, capsys, number
):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "run"):
        model_path(tmp_path / "run", 1).touch()
    advice = "start no second process for the same run"
    warning = f"Warning: {tmp_path} is on a file system without locks; {advice}\n"
    assert capsys.readouterr() == ("", warning)
    assert saved_steps(tmp_path / "run") == [1]


def test_a_folder_stays_locked_while_it_is_moved(tmp_path):
    folder = tmp_path / "run"
    with locked(folder):
        model_path(folder, 1).touch()
        assert move_aside(folder)
        with pytest.raises(BusyError), locked(folder):
            pass


def test_a_file_in_the_place_of_a_folder_is_an_error_of_the_system(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(FileExistsError), locked(tmp_path / "run"):
        pass
    with pytest.raises(FileExistsError), locked(tmp_path / "run" / "run"):
        pass


def test_a_used_folder_is_moved_to_the_first_free_name(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes").touch()
    (folder / "metrics.csv").touch()
    assert not is_used(folder)
    assert move_aside(folder) is None
    assert {*os.listdir(folder)} == {"notes", "metrics.csv"}

    (tmp_path / "run.2").write_text("a file")
    (tmp_path / "run.3").symlink_to("nowhere")
    for number, saved in [(1, "model-00020.pt"), (4, "training-state.pt")]:
        (folder / saved).write_text(saved)
        assert is_used(folder)
        place = tmp_path / f"run.{number}"
        assert move_aside(folder) == place
        assert (place / saved).read_text() == saved
        assert list(folder.iterdir()) == []
    assert (tmp_path / "run.1" / "notes").exists()
    assert (tmp_path / "run.2").read_text() == "a file"
    assert (tmp_path / "run.3").is_symlink()
    shutil.rmtree(tmp_path / "run.1")
    (folder / saved).touch()
    assert move_aside(folder) == tmp_path / "run.1"
    assert not is_used(tmp_path / "nowhere")
