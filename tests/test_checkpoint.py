"""Checkpoints: what is written, and what is let in."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codebase.checkpoint import (
    load_model,
    model_name,
    model_path,
    save_model,
    saved_steps,
)
from codebase.errors import CheckpointError
from codebase.models.vae import VAE


@pytest.fixture
def path(tmp_path):
    return model_path(tmp_path, 20)


def test_names_are_those_of_the_report(tmp_path):
    assert model_name(10, 0) == "model=vae_z=10_run=0000"
    assert model_name(2, 123) == "model=vae_z=02_run=0123"
    assert model_path(tmp_path, 20000).name == "model-20000.pt"
    assert model_path(tmp_path, 30).name == "model-00030.pt"


def test_steps_are_listed_in_rising_order(tmp_path):
    for step in (100000, 20, 10000):
        model_path(tmp_path, step).touch()
    (tmp_path / ".model-00030.pt.7.tmp").touch()
    (tmp_path / "model-best.pt").touch()
    assert saved_steps(tmp_path) == [20, 10000, 100000]
    assert saved_steps(tmp_path / "nowhere") == []


def test_a_model_comes_back_as_a_plain_state_dict(path):
    model, other = VAE(z_dim=3), VAE(z_dim=3)
    save_model(model, path)
    load_model(other, path)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
        assert torch.equal(other.state_dict()[name], value)


def test_the_same_model_is_the_same_bytes_under_any_name(path, tmp_path):
    model = VAE()
    save_model(model, path)
    save_model(model, tmp_path / "other.pt")
    assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()


def refused(path, model=None):
    """The message with which the file is refused; the model must be as it was."""
    model = model or VAE(z_dim=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_model(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_absent_file_is_named_with_the_steps_that_exist(path, tmp_path):
    assert "none" in refused(path)
    for step in (10, 30):
        save_model(VAE(), model_path(tmp_path, step))
    assert "10, 30" in refused(path)


def test_another_z_is_refused(path):
    save_model(VAE(z_dim=4), path)
    assert "another --z" in refused(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        {"enc.net.0.weight": torch.zeros(300, 784)},
        VAE(z_dim=3).state_dict() | {"extra": torch.zeros(1)},
        VAE(z_dim=3).state_dict() | {"z_prior_m": 0.0},
        VAE(z_dim=3).state_dict() | {"z_prior_m": torch.zeros(1, dtype=torch.float64)},
        VAE(z_dim=3).state_dict() | {"z_prior_m": torch.zeros(1).to_sparse()},
        VAE(z_dim=3).state_dict() | {"z_prior_m": torch.zeros(1, device="meta")},
        VAE(z_dim=3).state_dict() | {"dec.net.4.bias": torch.full((784,), torch.nan)},
        VAE(z_dim=3).state_dict() | {"dec.net.4.bias": torch.full((784,), torch.inf)},
    ],
)
def test_other_contents_are_refused(path, content):
    torch.save(content, path)
    refused(path)


def test_a_file_cut_at_any_place_is_refused(path):
    save_model(VAE(z_dim=3), path)
    content = path.read_bytes()
    places = torch.randint(len(content), (50,)).tolist()
    for length in (0, 1, len(content) - 1, *places):
        path.write_bytes(content[:length])
        assert "cut short, damaged or no checkpoint" in refused(path)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_are_refused_or_change_no_value(tmp_path, flips):
    path, model, saved = model_path(tmp_path, 1), VAE(z_dim=3), VAE(z_dim=3)
    save_model(saved, path)
    content = bytearray(path.read_bytes())
    for place, bit in flips:
        content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)
    try:
        load_model(model, path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(
            torch.equal(*pair) for pair in zip(model.parameters(), saved.parameters(), strict=True)
        )


def test_a_flipped_bit_of_a_weight_is_refused(path):
    save_model(VAE(z_dim=3), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_a_checkpoint_of_the_old_format_is_taken(path):
    model, saved = VAE(z_dim=3), VAE(z_dim=3)
    torch.save(saved.state_dict(), path, _use_new_zipfile_serialization=False)
    load_model(model, path)
    assert torch.equal(model.dec.net[4].bias, saved.dec.net[4].bias)


def test_nothing_in_a_file_is_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(VAE(z_dim=3).state_dict() | {"z_prior_m": Trap()}, path)
    refused(path)
    assert not (tmp_path / "sprung").exists()
