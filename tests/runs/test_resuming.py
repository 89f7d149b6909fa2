"""Going on with a run: from wherever it stands, or not at all, with the reason."""

from pathlib import Path

import pytest
import torch
from training import (
    FOLDER,
    STATE,
    TINY,
    change_loss,
    files_in,
    interrupt,
    load_small,
    results_in,
    same_parameters,
    settle,
    train_small,
)

from codebase.models import nns
from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.folder import locked, model_path, run_folder, saved_steps
from codebase.runs.metrics import METRICS, read_metrics
from codebase.system.errors import BusyError, CheckpointError, UserError
from codebase.utils import gaussian_parameters

NEW_FILES = {"settings.json", "metrics.csv", "training-state.pt", "model-00003.pt"}
ASIDE = FOLDER.with_name(f"{FOLDER.name}.1")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


# Going on. That an interrupted run ends in the same bytes, is in test_train.py.


def test_a_constant_run_may_be_made_longer(capsys):
    train_small(TINY._replace(iter_max=20))
    train_small(resume=True)
    assert "Resuming at step 20\n" in capsys.readouterr().out
    assert saved_steps(FOLDER) == [20, 30]
    longer = load_small()
    assert same_parameters(longer, train_small())


@pytest.mark.parametrize("after", [12, 200])
def test_a_run_that_ends_where_it_was_interrupted_is_complete(after):
    settings = TINY._replace(iter_max=after)
    interrupt(settings._replace(iter_max=1000), after, iter_save=100)
    model = train_small(settings, iter_save=100, resume=True)
    assert same_parameters(load_small(settings), model)
    resumed = results_in(FOLDER)
    train_small(settings, iter_save=100)
    assert results_in(FOLDER) == resumed


def test_another_iter_save_saves_the_model_of_the_step_where_a_run_stands(capsys):
    interrupt(TINY, after=20)
    assert saved_steps(FOLDER) == []
    train_small(iter_save=20, resume=True)
    assert saved_steps(FOLDER) == [20, 30]
    resumed = results_in(FOLDER)
    train_small(iter_save=20)
    assert results_in(FOLDER) == resumed


def test_a_shorter_run_is_loaded_from_its_model(capsys):
    train_small(iter_save=10)
    before = files_in(FOLDER)
    capsys.readouterr()
    model = train_small(TINY._replace(iter_max=20), resume=True)
    assert same_parameters(model, load_small(TINY._replace(iter_max=20)))
    with pytest.raises(CheckpointError, match="steps saved in its folder: 10, 20, 30; choose"):
        train_small(TINY._replace(iter_max=25), resume=True)
    assert files_in(FOLDER) == before
    assert "Already at step 30\n" in capsys.readouterr().out


def test_a_run_without_a_model_is_not_gone_on_with_to_an_earlier_step():
    interrupt(TINY, after=20)
    before = files_in(FOLDER)
    sentence = f"{FOLDER} is at step 20, and has no model yet; choose a larger --iter_max"
    with pytest.raises(CheckpointError, match=sentence):
        train_small(TINY._replace(iter_max=15), resume=True)
    assert files_in(FOLDER) == before


def test_a_complete_run_is_only_loaded(capsys):
    trained = train_small()
    before = files_in(FOLDER)
    capsys.readouterr()
    loaded = train_small(resume=True)
    assert same_parameters(trained, loaded)
    assert files_in(FOLDER) == before
    assert capsys.readouterr().out == "Already at step 30\n"


@pytest.mark.parametrize("step", [20, 30])
def test_a_model_that_is_gone_is_written_again(step):
    if step == 20:
        interrupt(after=20, iter_save=20)
    else:
        train_small(iter_save=20)
    before = results_in(FOLDER)
    model_path(FOLDER, step).unlink()
    train_small(TINY._replace(iter_max=step), iter_save=20, resume=True)
    assert results_in(FOLDER) == before


@pytest.mark.parametrize("writes", range(7))
def test_a_run_killed_between_two_writes_ends_in_the_same_bytes(monkeypatch, tmp_path, writes):
    """Of the settings, and of two checkpoints, each the table, the state and a model."""

    class Killed(BaseException):
        """What nothing in the program catches, as nothing catches kill -9."""

    train_small(iter_save=20)
    whole = results_in(FOLDER.rename(tmp_path / "whole"))
    left = [True] * writes

    def write(_):
        if not left:
            raise Killed
        left.pop()

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", write)
        with pytest.raises(Killed):
            train_small(iter_save=20)
    assert len(files_in(FOLDER)) == [0, 1, 2, 3, 4, 4, 4][writes]
    train_small(iter_save=20, resume=True)
    assert results_in(FOLDER) == whole


def test_rows_from_after_the_state_are_replaced(tmp_path):
    """As a process leaves them that is killed between the table and the state."""
    settings = TINY._replace(iter_max=250)
    interrupt(settings, after=90)
    early = STATE.read_bytes()
    train_small(settings, resume=True)
    whole, times = results_in(FOLDER), [row.seconds for row in read_metrics(FOLDER)]
    STATE.write_bytes(early)
    train_small(settings, resume=True)
    assert results_in(FOLDER) == whole
    assert [row.seconds for row in read_metrics(FOLDER)] != times  # measured again, not kept


def test_nothing_to_resume_is_said_and_a_run_starts(capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / "notes.txt").write_text("a student's")
    train_small(resume=True)
    assert f"Nothing to resume in {FOLDER}: starting anew\n" in capsys.readouterr().out
    assert saved_steps(FOLDER) == [30]
    assert (FOLDER / "notes.txt").exists()


# What is refused.


def refused(settings=TINY, error=CheckpointError):
    """The sentence with which the run is not resumed; its folder stays as it is."""
    folder = run_folder(settings)
    before = files_in(folder)
    with pytest.raises(error) as caught:
        train_small(settings, resume=True)
    assert files_in(folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


ANEW = f"; without --resume 1 a new run starts, and {FOLDER} is kept under another name"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"nn": "v1"}, "nn was v1 and is tiny"),
        ({"z": 3}, "z was 3 and is 2"),
        ({"batch_size": 20}, "batch_size was 20 and is 10"),
        ({"lr": 2e-3}, "lr was 0.002 and is 0.001"),
        ({"lr_schedule": "linear"}, "lr_schedule was linear and is constant"),
        ({"dataset": "mnist"}, "dataset was mnist and is synthetic"),
        ({"run": 1}, "run was 1 and is 0"),
        ({"run": 1, "z": 3}, "z was 3 and is 2, run was 1 and is 0"),
    ],
)
def test_a_state_of_other_settings_is_refused(changed, difference):
    settings = TINY._replace(**changed)
    interrupt(settings)
    run_folder(settings).rename(FOLDER)
    assert refused() == f"{STATE} is of other settings: {difference}{ANEW}"


def test_a_linear_run_of_another_length_is_refused():
    """Even if someone has given its folder the name of the longer one."""
    settings = TINY._replace(lr_schedule="linear")
    interrupt(settings, after=2)
    longer = settings._replace(iter_max=40)
    run_folder(settings).rename(run_folder(longer))
    assert "of other settings: iter_max was 30 and is 40; without --resume 1" in refused(longer)


def test_a_state_of_other_networks_is_not_called_damaged(monkeypatch):
    """As when a student has changed the file of the networks."""
    interrupt()

    class Wider(torch.nn.Module):
        def __init__(self, z_dim):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(784, 9), torch.nn.Linear(9, 2 * z_dim))

        def encode(self, x):
            return gaussian_parameters(self.net(x))

        forward = encode

    monkeypatch.setattr(nns.tiny, "Encoder", Wider)
    sentence = refused()
    assert sentence.startswith(f"{STATE} is of other networks or no training state: ")
    assert sentence.endswith(ANEW)
    assert "damaged" not in sentence


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"PK\x03\x04nonsense", bytes(1000), "cut", "flipped", "a model"]
)
def test_a_file_that_is_no_state_is_refused(content):
    train_small()
    sound = STATE.read_bytes()
    others = {
        "cut": sound[:-1],
        "flipped": bytes([*sound[:9999], sound[9999] ^ 1, *sound[10000:]]),
        "a model": model_path(FOLDER, 30).read_bytes(),
    }
    STATE.write_bytes(others.get(content, content))
    sentence = refused()
    assert sentence.startswith(f"{STATE} is ")
    assert sentence.endswith(ANEW)


def test_nothing_in_a_state_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "sprung",)

    interrupt()
    torch.save(checkpoint.load(STATE) | {"window": Trap()}, STATE)
    assert "holds other objects than tensors" in refused()
    assert not (tmp_path / "sprung").exists()


def test_models_without_a_state_are_no_run_to_go_on_with():
    train_small()
    STATE.unlink()
    assert refused() == f"{FOLDER} has models, but no training-state.pt to go on from{ANEW}"


def test_a_damaged_table_is_refused_and_can_be_deleted():
    interrupt(TINY._replace(iter_max=200), after=150)
    table = FOLDER / METRICS
    table.write_text("nonsense\n" + table.read_text())
    assert refused(error=UserError) == f"{table} is damaged; delete it to go on without it"
    table.unlink()
    train_small(TINY._replace(iter_max=200), resume=True)
    assert [row.step for row in read_metrics(FOLDER)] == [200, 200, 200]


def test_a_folder_in_which_another_trains_is_left_alone():
    train_small()
    before = files_in(FOLDER)
    with locked(FOLDER):
        for resume in (False, True):
            with pytest.raises(BusyError, match=f"another process is training in {FOLDER}"):
                train_small(resume=resume)
    assert files_in(FOLDER) == before
    assert [path for path in FOLDER.parent.iterdir() if path.is_dir()] == [FOLDER]
    train_small(resume=True)


# An earlier run.


def test_an_earlier_run_is_moved_aside_whole(capsys):
    train_small(iter_save=20)
    (FOLDER / "notes.txt").write_text("a student's")
    (FOLDER / "pictures").mkdir()
    (FOLDER / "pictures" / "samples.png").write_bytes(b"...")
    first, second, third = (FOLDER.with_name(f"{FOLDER.name}.{number}") for number in (1, 2, 3))
    first.mkdir()
    before = files_in(FOLDER)
    train_small(TINY._replace(iter_max=3))
    printed = capsys.readouterr().out
    assert f"The earlier run is now {second}; --resume 1 would have gone on with it\n" in printed
    assert files_in(second) == before
    assert files_in(first) == {}
    assert files_in(FOLDER).keys() == NEW_FILES
    train_small(TINY._replace(iter_max=3))
    assert files_in(third).keys() == NEW_FILES
    assert files_in(second) == before


def test_a_run_that_fails_at_once_loses_nothing_of_an_earlier_one(monkeypatch):
    train_small()
    before = files_in(FOLDER)
    change_loss(monkeypatch, lambda loss, _: loss + torch.nan)
    for _ in range(2):
        with pytest.raises(UserError, match="diverged"):
            train_small(seconds_between_states=0)
    assert files_in(ASIDE) == before
    # Nothing was saved: the folder is used again.
    assert not FOLDER.with_name(f"{FOLDER.name}.2").exists()


def test_averages_of_parameters_in_another_order_are_refused(monkeypatch):
    """As when a solution is replaced by one that makes its decoder before its encoder."""
    interrupt(after=3)

    class Other(VAE):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            encoder = self.enc
            del self.enc
            self.enc = encoder

    monkeypatch.setattr("codebase.train.VAE", Other)
    with pytest.raises(CheckpointError, match="averages are of other parameters; without --resume"):
        train_small(resume=True)
