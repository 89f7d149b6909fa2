"""A run's folder: its files, its lock, and where an earlier run goes."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.errors import UserError

pytestmark = pytest.mark.usefixtures("place")
RUN = RunFolder(Settings())


def test_the_files_have_the_names_of_the_assignment_and_the_steps_are_in_rising_order():
    assert RUN.path == Path("checkpoints/model=vae_z=10_run=0000")
    assert RUN.model(20000) == RUN.path / "model-20000.pt"
    assert RUN.model(30) == RUN.path / "model-00030.pt"
    assert RUN.saved_steps() == []
    RUN.path.mkdir(parents=True)
    for step in (100000, 10000, 7, 300):
        RUN.model(step).touch()
    for other in (".model-00030.pt", "model-best.pt", "model-30.pt", "model-00030.pt.bak"):
        (RUN.path / other).touch()
    RUN.results(7).touch()
    assert RUN.saved_steps() == [7, 300, 10000, 100000]
    assert RUN.saved_steps("results") == [7]


def test_only_one_process_trains_in_a_folder():
    with pytest.raises(ZeroDivisionError), RUN.lock():
        RUN.model(1).touch()
        assert RUN.move_aside()  # the lock stays
        with pytest.raises(UserError, match=f"another process .* {RUN.path}"), RUN.lock():
            pass
        with RunFolder(Settings(run=1)).lock():
            raise ZeroDivisionError
    with RUN.lock():
        assert list(RUN.path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_warning_is_printed_where_the_file_system_has_no_locks(monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with RUN.lock():
        RUN.model(1).touch()
    output, errors = capsys.readouterr()
    assert (output, errors.count("Warning: "), errors.count("locks")) == ("", 1, 1)


def test_a_used_folder_is_moved_to_the_first_free_name():
    RUN.path.mkdir(parents=True)
    (RUN.path / "notes").touch()
    RUN.metrics.touch()
    assert RUN.move_aside() is None
    assert {*os.listdir(RUN.path)} == {"notes", "metrics.csv"}
    places = [RUN.path.with_name(f"{RUN.path.name}.{number}") for number in range(5)]
    places[2].write_text("a file")
    places[3].symlink_to("nowhere")
    for place, saved in [(places[1], "model-00020.pt"), (places[4], "training-state.pt")]:
        (RUN.path / saved).write_text(saved)
        assert RUN.move_aside() == place
        assert (place / saved).read_text() == saved
        assert list(RUN.path.iterdir()) == []
    assert (places[1] / "notes").exists()
    shutil.rmtree(places[1])
    RUN.state.touch()
    assert RUN.move_aside() == places[1]
