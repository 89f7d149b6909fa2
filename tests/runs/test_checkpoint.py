"""Models and training states in files: what is written, and what is let in."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.checkpoint import load_model, save_model
from codebase.runs.folder import model_path
from codebase.system.errors import CheckpointError

PARAMETERS = VAE(z_dim=3).state_dict()


@pytest.fixture
def path(tmp_path):
    return model_path(tmp_path, 20)


def holds(model, parameters):
    """Whether the model has these values, whatever it is wrapped in."""
    state = {strip(name): value for name, value in model.state_dict().items()}
    assert state.keys() == parameters.keys()
    return all(torch.equal(state[name], value) for name, value in parameters.items())


def strip(name):
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


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
    # As a notebook reads it, with nothing of this project.
    assert not other.load_state_dict(torch.load(path)).missing_keys


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
        assert holds(model, saved.state_dict())
    assert not model.z_prior_m.requires_grad


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict"])
def test_the_parameters_of_a_larger_checkpoint_are_taken(path, wrapper):
    others = {"epoch": 3, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save({**others, wrapper: PARAMETERS, "loss": torch.tensor(torch.nan)}, path)
    model = VAE(z_dim=3)
    load_model(model, path)
    assert holds(model, PARAMETERS)


# Names of wrapped models.

PREFIXES = {
    "compiled": "_orig_mod.",
    "parallel": "module.",
    "parallel, of a compiled one": "module._orig_mod.",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_names_of_wrapped_models_are_taken(path, prefix, wrapper):
    named = {f"{prefix}{name}": value for name, value in PARAMETERS.items()}
    torch.save({wrapper: named} if wrapper else named, path)
    model = VAE(z_dim=3)
    load_model(model, path)
    assert holds(model, PARAMETERS)


def compiled(model):
    return torch.compile(model)


def parallel(model):
    return nn.DataParallel(model)


def both(model):
    return nn.DataParallel(torch.compile(model))


def compiled_parts(model):
    """As a student does who compiles the networks only, the encoder's layers one by one."""
    model.enc.net = nn.Sequential(*(torch.compile(layer) for layer in model.enc.net))
    model.dec = torch.compile(model.dec)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [compiled, parallel, both, compiled_parts])
def test_a_wrapped_model_is_saved_under_plain_names_and_loads_any(path, tmp_path, wrap):
    plain = VAE(z_dim=3)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    wrapped = wrap(plain)
    assert wrapped.state_dict().keys() != before.keys()
    save_model(wrapped, path)
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == before.keys()
    # Its own file, that of a model without a wrapper, and what torch.save makes of the wrapped one.
    torch.save(wrapped.state_dict(), tmp_path / "by-hand.pt")
    for file in (path, tmp_path / "by-hand.pt"):
        for model in (VAE(z_dim=3), wrap(VAE(z_dim=3))):
            assert not holds(model, before)
            load_model(model, file)
            assert holds(model, before)


# What is refused.


def refused(path, model=None):
    """The sentence with which the file is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_model(model or VAE(z_dim=3), path)
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
    for other in (VAE(z_dim=4), nn.Linear(2, 3)):
        save_model(other, path)
        sentence = refused(path)
        assert f"{path} is of other networks or another --z: " in sentence
        assert "damaged" not in sentence
    save_model(VAE(z_dim=4), path)
    assert "torch.Size([8, 300])" in refused(path) or "torch.Size([300, 4])" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"enc.net.0.weight": torch.zeros(300, 784)},
        {name: value for name, value in PARAMETERS.items() if name != "z_prior_m"},
        PARAMETERS | {"extra": torch.zeros(1)},
        PARAMETERS | {5: torch.zeros(1)},
        PARAMETERS | {"z_prior_m": 0.0},
        PARAMETERS | {"z_prior_m": None},
        PARAMETERS | {"z_prior_m": {"z_prior_m": torch.zeros(1)}},
        PARAMETERS | {"z_prior_m": torch.zeros(())},
        PARAMETERS | {"z_prior_m": torch.zeros(1, 1)},
        {"state_dict": {}},
        {"state_dict": PARAMETERS | {"z_prior_m": torch.zeros(2)}},
        {"state_dict": [1, 2]},
        {"model_state_dict": [1, 2]},
        {"model_state_dict": 5},
        {"model_state_dict": None},
        {f"encoder.{name}": value for name, value in PARAMETERS.items()},
        {f"{name}.module": value for name, value in PARAMETERS.items()},
    ],
)
def test_other_contents_are_refused(path, content):
    torch.save(content, path)
    assert "damaged" not in refused(path)


@pytest.mark.parametrize("content", [[1, 2], 5, None, "a text", torch.zeros(2)])
def test_what_is_no_dictionary_is_no_checkpoint(path, content):
    torch.save(content, path)
    assert "no checkpoint" in refused(path)


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
    path, model = tmp_path / "model.pt", nn.Linear(20, 10)
    content = bytearray(SMALL_FILE.getvalue())
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


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", ["z_prior_m", "epoch"])  # among the parameters, and beside them
def test_nothing_in_a_file_is_executed(path, tmp_path, name, new):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(
        {"state_dict": PARAMETERS, "epoch": 3} | {name: Trap()},
        path,
        _use_new_zipfile_serialization=new,
    )
    reason = "holds other objects than tensors, which are not loaded" if new else "is cut short"
    assert refused(path).startswith(f"{path} {reason}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [SMALL, {"weights": np.zeros(3)}, [1, 2], {1, 2}])
def test_what_was_not_saved_as_a_state_dict_is_told(path, content):
    """A whole module, NumPy's arrays; and what has nothing that could be a model."""
    torch.save(content, path)
    if isinstance(content, list | set):
        assert "no checkpoint" in refused(path)
    else:
        reason = "which are not loaded because loading them could run code"
        advice = "save the model's state_dict()"
        assert refused(path) == f"{path} holds other objects than tensors, {reason}; {advice}"


def test_a_run_of_another_data_set_is_named(tmp_path, monkeypatch):
    """Trained offline, on synthetic digits, and loaded where MNIST is."""
    monkeypatch.chdir(tmp_path)
    for other in ("_dataset=synthetic", "_lr=0.1_dataset=synthetic", "_batch_size=7"):
        folder = Path("checkpoints", f"model=vae_z=10{other}_run=0000")
        folder.mkdir(parents=True)
        save_model(SMALL, folder / "model-00010.pt")
    path = Path("checkpoints", "model=vae_z=10_run=0000", "model-00010.pt")
    there = Path("checkpoints", "model=vae_z=10_dataset=synthetic_run=0000", path.name)
    assert refused(path).endswith(f"folder: none; of another --dataset there is {there}")
    assert "another --dataset" not in refused(path.with_name("model-00020.pt"))


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path):
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)


def test_content_that_cannot_be_written_leaves_the_old(path):
    save_model(SMALL, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        checkpoint.save({"a function": lambda: None}, path)
    assert path.read_bytes() == before
