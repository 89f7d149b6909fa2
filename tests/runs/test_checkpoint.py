"""A run's folder, and its checkpoints: what is written, and what is let in."""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from codebase.checkpoint import load_model, model_path, save_model, saved_steps
from codebase.errors import BusyError, CheckpointError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from codebase import checkpoint
from codebase.models.vae import VAE
from codebase.settings import Settings


@pytest.fixture
def path(tmp_path):
    return model_path(tmp_path, 20)


def test_the_places_are_those_of_the_report():
    folder = checkpoint.run_folder(Settings())
    assert folder == Path("checkpoints/model=vae_z=10_run=0000")
    assert model_path(folder, 20000) == folder / "model-20000.pt"
    assert model_path(folder, 30) == folder / "model-00030.pt"
    assert checkpoint.state_path(folder) == folder / "training-state.pt"
    assert checkpoint.metrics_path(folder) == folder / "metrics.csv"


def test_steps_are_listed_in_rising_order(tmp_path):
    for step in (100000, 20, 10000):
        model_path(tmp_path, step).touch()
    for other in (".model-00030.pt", "model-best.pt", "model-30.pt", "model-00030.pt.bak"):
        (tmp_path / other).touch()
    assert saved_steps(tmp_path) == [20, 10000, 100000]
    assert saved_steps(tmp_path / "nowhere") == []


# What is written, and read again.


def test_a_model_comes_back_as_a_plain_state_dict(path):
    model, other = VAE(z_dim=3), VAE(z_dim=3)
    save_model(model, path)
    load_model(other, path)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
        assert torch.equal(other.state_dict()[name], value)


def test_the_same_model_is_the_same_bytes_under_any_name(path, tmp_path):
    model = VAE()
    save_model(model, path)
    save_model(model, tmp_path / "other.pt")
    assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_what_another_solution_saved_is_taken(path):
    """An OrderedDict of parameters, in any order, and in the format before PyTorch 1.6."""
    model, saved = VAE(z_dim=3), VAE(z_dim=3)
    for new in (True, False):
        nn.init.normal_(saved.dec.net[4].bias)
        parameters = dict(reversed(saved.state_dict(keep_vars=True).items()))
        torch.save(parameters, path, _use_new_zipfile_serialization=new)
        load_model(model, path)
        assert torch.equal(model.dec.net[4].bias, saved.dec.net[4].bias)
    assert not model.z_prior_m.requires_grad


def refused(path, model=None):
    """The sentence with which the file is refused; the model must be as it was."""
    model = model or VAE(z_dim=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_model(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
    return str(caught.value)


def test_an_absent_file_is_named_with_the_steps_that_exist(path, tmp_path):
    assert refused(path).endswith("steps saved in its folder: none")
    for step in (10, 30):
        save_model(VAE(), model_path(tmp_path, step))
    assert refused(path).endswith("steps saved in its folder: 10, 30; choose one with --iter_max")


def test_another_z_and_other_networks_are_told_from_damage(path):
    save_model(VAE(z_dim=4), path)
    sentence = refused(path)
    assert "is of other networks or another --z: enc.net.4.weight" in sentence
    assert "should be float32 of (6, 300) and is float32 of (8, 300)" in sentence
    assert "damaged" not in sentence
    save_model(nn.Linear(2, 3), path)
    assert "other networks or another --z: z_prior_m should be float32 of (1,) and is absent" in (
        refused(path)
    )


PARAMETERS = VAE(z_dim=3).state_dict()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        5,
        {"enc.net.0.weight": torch.zeros(300, 784)},
        PARAMETERS | {"extra": torch.zeros(1)},
        PARAMETERS | {5: torch.zeros(1)},
        PARAMETERS | {"z_prior_m": 0.0},
        PARAMETERS | {"z_prior_m": None},
        PARAMETERS | {"z_prior_m": {"z_prior_m": torch.zeros(1)}},
        PARAMETERS | {"z_prior_m": torch.zeros(())},
        PARAMETERS | {"z_prior_m": torch.zeros(1, 1)},
        PARAMETERS | {"z_prior_m": torch.zeros(1, dtype=torch.float64)},
        PARAMETERS | {"z_prior_m": torch.zeros(1, dtype=torch.int64)},
        PARAMETERS | {"z_prior_m": torch.zeros(1, dtype=torch.complex64)},
        PARAMETERS | {"z_prior_m": torch.zeros(1).to_sparse()},
        PARAMETERS | {"z_prior_m": torch.zeros(1, device="meta")},
        {name: value.half() for name, value in PARAMETERS.items()},
    ],
)
def test_other_contents_are_refused(path, content):
    torch.save(content, path)
    assert "damaged" not in refused(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["z_prior_v", "dec.net.4.bias"])
def test_values_that_are_not_finite_are_refused(path, name, value):
    parameters = {name: value.clone() for name, value in PARAMETERS.items()}
    parameters[name][-1] = value
    torch.save(parameters, path)
    assert "is damaged: it holds values that are not finite" in refused(path)


# Damage does not depend on the size of the model, and a small one can be damaged often.
SMALL, SMALL_FILE = nn.Linear(20, 10), io.BytesIO()
torch.save(SMALL.state_dict(), SMALL_FILE)


def test_a_file_cut_at_any_place_is_refused(path):
    content = SMALL_FILE.getvalue()
    for length in {*range(0, len(content), 29), 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert "is cut short, damaged or no checkpoint; put a sound copy there or train anew" in (
            refused(path, nn.Linear(20, 10))
        )


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_are_refused_or_change_no_value(tmp_path, flips):
    path, model, content = (
        tmp_path / "model.pt",
        nn.Linear(20, 10),
        bytearray(SMALL_FILE.getvalue()),
    )
    for place, bit in flips:
        content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)
    try:
        load_model(model, path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(map(torch.equal, model.parameters(), SMALL.parameters()))


def test_a_flipped_bit_of_a_weight_is_refused(path):
    save_model(VAE(z_dim=3), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_nothing_in_a_file_is_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for new in (True, False):
        torch.save(PARAMETERS | {"z_prior_m": Trap()}, path, _use_new_zipfile_serialization=new)
        assert "no checkpoint" in refused(path)
        assert not (tmp_path / "sprung").exists()


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path):
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)


def test_content_that_cannot_be_written_leaves_the_old(path):
    save_model(SMALL, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        checkpoint.save({"a function": lambda: None}, path)
    assert path.read_bytes() == before


# The folder.


def test_the_time_of_training_is_that_of_the_states_step(tmp_path):
    path = checkpoint.state_path(tmp_path)
    assert checkpoint.training_seconds(tmp_path, 7) is None
    checkpoint.save({"step": 7, "seconds": 12.5}, path)
    assert checkpoint.training_seconds(tmp_path, 7) == 12.5
    assert checkpoint.training_seconds(tmp_path, 8) is None
    for content in ({}, {"step": 7}):
        checkpoint.save(content, path)
        assert checkpoint.training_seconds(tmp_path, 7) is None
    path.write_bytes(b"nonsense")
    assert checkpoint.training_seconds(tmp_path, 7) is None


def test_one_process_trains_in_a_folder(tmp_path):
    folder = tmp_path / "checkpoints" / "run"
    with pytest.raises(ZeroDivisionError), checkpoint.locked(folder):
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        with (
            pytest.raises(BusyError, match=f"another process is training in {folder}; wait for"),
            checkpoint.locked(folder),
        ):
            pass
        with checkpoint.locked(folder.with_name("other")):
            pass
        raise ZeroDivisionError
    with checkpoint.locked(folder):
        assert [file.name for file in folder.iterdir()] == ["file"]


def test_a_folder_stays_locked_while_it_is_moved(tmp_path):
    folder = tmp_path / "run"
    with checkpoint.locked(folder):
        model_path(folder, 1).touch()
        checkpoint.move_aside(folder)
        with pytest.raises(BusyError), checkpoint.locked(folder):
            pass


def test_what_a_dead_process_left_half_written_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    half_written = []
    monkeypatch.setattr(os, "fsync", lambda _: half_written.extend(os.listdir(folder)))
    save_model(SMALL, model_path(folder, 1))
    for name in (*half_written, ".1234567.tmp", "notes.tmp", ".hidden"):
        (folder / name).touch()
    assert len(os.listdir(folder)) == 5
    with checkpoint.locked(folder):
        assert set(os.listdir(folder)) == {"model-00001.pt", "notes.tmp", ".hidden"}


def test_a_used_folder_is_moved_to_the_first_free_name(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes").touch()
    assert not checkpoint.is_used(folder)
    assert checkpoint.move_aside(folder) is None
    assert [file.name for file in folder.iterdir()] == ["notes"]

    (tmp_path / "run.2").write_text("a file")
    (tmp_path / "run.3").symlink_to("nowhere")
    for number, saved in [(1, "model-00020.pt"), (4, "training-state.pt")]:
        (folder / saved).write_text(saved)
        assert checkpoint.is_used(folder)
        place = tmp_path / f"run.{number}"
        assert checkpoint.move_aside(folder) == place
        assert (place / saved).read_text() == saved
        assert list(folder.iterdir()) == []
    assert (tmp_path / "run.1" / "notes").exists()
    assert (tmp_path / "run.2").read_text() == "a file"
    assert (tmp_path / "run.3").is_symlink()
    shutil.rmtree(tmp_path / "run.1")
    (folder / saved).touch()
    assert checkpoint.move_aside(folder) == tmp_path / "run.1"
