"""Resuming a run, refusing to resume it, and moving an earlier run aside."""

from pathlib import Path

import pytest
import torch
from training import (
    FOLDER,
    RUN,
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
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.system.errors import UserError

NEW_FILES = {"settings.json", "metrics.csv", "training-state.pt", "model-00003.pt"}
ASIDE = FOLDER.with_name(f"{FOLDER.name}.1")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, stray):
    settle(tmp_path, monkeypatch)


# Resuming. test_train.py proves that an interrupted run ends in the same bytes.


def test_a_constant_run_may_be_made_longer(capsys):
    train_small(TINY._replace(iter_max=20))
    train_small(resume=True)
    assert "Resuming at step 20\n" in capsys.readouterr().out
    assert RUN.saved_steps() == [20, 30]
    longer = load_small()
    assert same_parameters(longer, train_small())


@pytest.mark.parametrize("after", [12, 200])
def test_a_run_whose_end_is_moved_to_where_it_was_interrupted_is_completed(after):
    settings = TINY._replace(iter_max=after)
    interrupt(settings._replace(iter_max=1000), after, iter_save=100)
    model = train_small(settings, iter_save=100, resume=True)
    assert same_parameters(load_small(settings), model)
    resumed = results_in(FOLDER)
    train_small(settings, iter_save=100)
    assert results_in(FOLDER) == resumed


def test_another_iter_save_saves_the_model_of_the_step_that_was_reached(capsys):
    interrupt(TINY, after=20)
    assert RUN.saved_steps() == []
    train_small(iter_save=20, resume=True)
    assert RUN.saved_steps() == [20, 30]
    resumed = results_in(FOLDER)
    train_small(iter_save=20)
    assert results_in(FOLDER) == resumed


def test_a_shorter_run_is_loaded_from_its_model(capsys):
    train_small(iter_save=10)
    before = files_in(FOLDER)
    capsys.readouterr()
    model = train_small(TINY._replace(iter_max=20), resume=True)
    assert same_parameters(model, load_small(TINY._replace(iter_max=20)))
    with pytest.raises(UserError, match=r"10\.pt, .*20\.pt, .*30\.pt; choose"):
        train_small(TINY._replace(iter_max=25), resume=True)
    assert files_in(FOLDER) == before
    assert "already at step 30\n" in capsys.readouterr().out


def test_a_run_without_a_model_cannot_be_resumed_to_an_earlier_step():
    interrupt(TINY, after=20)
    before = files_in(FOLDER)
    with pytest.raises(UserError, match="there is no checkpoint"):
        train_small(TINY._replace(iter_max=15), resume=True)
    assert files_in(FOLDER) == before


def test_a_complete_run_is_only_loaded(capsys):
    trained = train_small()
    before = files_in(FOLDER)
    capsys.readouterr()
    loaded = train_small(resume=True)
    assert same_parameters(trained, loaded)
    assert files_in(FOLDER) == before
    assert capsys.readouterr().out == "The run is already at step 30\n"


@pytest.mark.parametrize("step", [20, 30])
def test_a_deleted_model_is_written_again(step):
    if step == 20:
        interrupt(after=20, iter_save=20)
    else:
        train_small(iter_save=20)
    before = results_in(FOLDER)
    RUN.model(step).unlink()
    train_small(TINY._replace(iter_max=step), iter_save=20, resume=True)
    assert results_in(FOLDER) == before


@pytest.mark.parametrize("writes", range(7))
def test_a_run_killed_between_two_writes_ends_in_the_same_bytes(monkeypatch, tmp_path, writes):
    """The writes are the settings, then metrics, state and model of each of two checkpoints."""

    class Killed(BaseException):
        """An exception that the program does not catch, as it cannot catch kill -9."""

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
    """A process that is killed between the two writes leaves such rows."""
    settings = TINY._replace(iter_max=250)
    interrupt(settings, after=90)
    early = STATE.read_bytes()
    train_small(settings, resume=True)
    whole, times = results_in(FOLDER), [row.seconds for row in read_metrics(RUN)]
    STATE.write_bytes(early)
    train_small(settings, resume=True)
    assert results_in(FOLDER) == whole
    assert [row.seconds for row in read_metrics(RUN)] != times


def test_a_new_run_starts_where_there_is_nothing_to_resume(capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / "notes.txt").write_text("a student's")
    train_small(resume=True)
    assert "Nothing to resume" in capsys.readouterr().out
    assert RUN.saved_steps() == [30]
    assert (FOLDER / "notes.txt").exists()


# Refusing to resume.


def refused(settings=TINY, advice="without --resume 1 a new run starts"):
    """The message of the error that resuming causes; the folder does not change."""
    folder = RunFolder(settings).path
    before = files_in(folder)
    with pytest.raises(UserError) as caught:
        train_small(settings, resume=True)
    assert files_in(folder) == before
    assert "\n" not in str(caught.value)
    assert advice in str(caught.value)
    return str(caught.value)


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
def test_a_state_from_other_settings_is_refused(changed, difference):
    settings = TINY._replace(**changed)
    interrupt(settings)
    RunFolder(settings).path.rename(FOLDER)
    assert f"{STATE} is from other settings: {difference};" in refused()


def test_a_linear_run_of_another_length_is_refused():
    """Even if its folder is renamed to that of the longer one."""
    settings = TINY._replace(lr_schedule="linear")
    interrupt(settings, after=2)
    longer = settings._replace(iter_max=40)
    RunFolder(settings).path.rename(RunFolder(longer).path)
    assert "iter_max was 30 and is 40;" in refused(longer)


def test_a_state_from_changed_networks_is_not_called_damaged(monkeypatch):
    """A student may have changed the file of the networks."""
    interrupt()

    plain = nns.tiny.Encoder
    monkeypatch.setattr(nns.tiny, "Encoder", lambda z_dim: plain(z_dim + 1))
    sentence = refused()
    assert sentence.startswith(f"{STATE} does not fit these networks: ")
    assert "damaged" not in sentence


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"PK\x03\x04nonsense", bytes(1000), "cut", "flipped", "a model"]
)
def test_a_damaged_state_is_refused(content):
    train_small()
    intact = STATE.read_bytes()
    others = {
        "cut": intact[:-1],
        "flipped": bytes([*intact[:9999], intact[9999] ^ 1, *intact[10000:]]),
        "a model": RUN.model(30).read_bytes(),
    }
    STATE.write_bytes(others.get(content, content))
    assert refused().startswith(str(STATE))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("settings", [1]),
        ("window", torch.zeros(1)),
        ("training", {"step": "x"}),
        ("training", {"step": -3}),
        ("training", {"step": 1.5}),
        ("training", {"numbers": {"": {"loss": 3}}}),
        ("training", {"numbers": {"": {"calls": "many"}}}),
    ],
)
def test_a_state_of_other_types_is_refused(key, value):
    train_small()
    state = torch.load(STATE, weights_only=True)
    changed = state[key] | value if key == "training" else value
    torch.save(state | {key: changed}, STATE)
    assert refused().startswith(str(STATE))


def test_nothing_in_a_state_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "sprung",)

    interrupt()
    torch.save(checkpoint.load(STATE) | {"window": Trap()}, STATE)
    assert "not loaded" in refused()
    assert not (tmp_path / "sprung").exists()


def test_models_without_a_state_are_refused():
    train_small()
    STATE.unlink()
    assert f"{FOLDER} has models, but no training-state.pt" in refused()


def test_a_damaged_file_of_metrics_is_refused_and_may_be_deleted():
    interrupt(TINY._replace(iter_max=200), after=150)
    RUN.metrics.write_text("nonsense\n" + RUN.metrics.read_text())
    assert f"{RUN.metrics} is damaged; delete it" in refused(advice="delete it")
    RUN.metrics.unlink()
    train_small(TINY._replace(iter_max=200), resume=True)
    assert [row.step for row in read_metrics(RUN)] == [200, 200, 200]


def test_a_folder_in_which_another_process_trains_is_left_unchanged():
    train_small()
    before = files_in(FOLDER)
    with RUN.lock():
        for resume in (False, True):
            with pytest.raises(UserError, match=f"another process .* {FOLDER}"):
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
    assert f"The earlier run is now {second};" in printed
    assert files_in(second) == before
    assert files_in(first) == {}
    assert files_in(FOLDER).keys() == NEW_FILES
    train_small(TINY._replace(iter_max=3))
    assert files_in(third).keys() == NEW_FILES
    assert files_in(second) == before


def test_a_run_that_fails_in_its_first_step_leaves_the_folder_unchanged(monkeypatch):
    train_small()
    before = files_in(FOLDER)
    change_loss(monkeypatch, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_small()
    assert files_in(FOLDER) == before
    assert not ASIDE.exists()


def test_a_run_that_diverges_at_once_deletes_nothing_of_an_earlier_one(monkeypatch):
    train_small()
    before = files_in(FOLDER)
    change_loss(monkeypatch, lambda loss, _: loss + torch.nan)
    for _ in range(2):
        with pytest.raises(UserError, match="diverged"):
            train_small(seconds_between_states=0)
    assert files_in(ASIDE) == before
    # The first failed run saved nothing, so the second one uses its folder.
    assert not FOLDER.with_name(f"{FOLDER.name}.2").exists()


def test_averages_of_parameters_in_another_order_are_refused(monkeypatch):
    """Another solution may make its decoder before its encoder."""
    interrupt(after=3)

    class Other(VAE):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            encoder = self.enc
            del self.enc
            self.enc = encoder

    Other.__module__ = VAE.__module__  # or the changed file would be refused
    monkeypatch.setattr("codebase.train.VAE", Other)
    with pytest.raises(UserError, match="averages belong to other parameters"):
        train_small(resume=True)
