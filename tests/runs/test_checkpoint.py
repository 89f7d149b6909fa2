"""Models and training states in files: writing, reading and refusing them."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.checkpoint import load_model, plain_parameters
from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.errors import UserError

PARAMETERS = VAE(z_dim=3).state_dict()
# Damage does not depend on the size of the model, and a small one can be damaged often.
SMALL, SMALL_FILE = nn.Linear(20, 10), io.BytesIO()
torch.save(SMALL.state_dict(), SMALL_FILE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model-00020.pt"


def save_model(model, path):
    checkpoint.save(plain_parameters(model), path)


def holds(model, parameters):
    """Whether the model has these values, under plain or wrapped names."""
    state = {strip(name): value for name, value in model.state_dict().items()}
    assert state.keys() == parameters.keys()
    return all(torch.equal(state[name], value) for name, value in parameters.items())


def strip(name):
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


# Writing and reading.


def test_a_model_is_saved_as_a_plain_state_dict(path):
    model, other = VAE(z_dim=3), VAE(z_dim=3)
    save_model(model, path)
    load_model(other, path)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
        assert torch.equal(other.state_dict()[name], value)
    # A notebook can read it without this project.
    assert not other.load_state_dict(torch.load(path)).missing_keys


def test_a_model_gives_the_same_bytes_under_any_file_name(path, tmp_path):
    model = VAE()
    save_model(model, path)
    save_model(model, tmp_path / "other.pt")
    assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_a_file_of_another_solution_is_read(path):
    """It may hold Parameters in any order, in the format before PyTorch 1.6."""
    model, saved = VAE(z_dim=3), VAE(z_dim=3)
    for new in (True, False):
        nn.init.normal_(saved.dec.net[4].bias)
        parameters = dict(reversed(saved.state_dict(keep_vars=True).items()))
        torch.save(parameters, path, _use_new_zipfile_serialization=new)
        load_model(model, path)
        assert holds(model, saved.state_dict())
    assert not model.z_prior_m.requires_grad


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict", "model", "net"])
def test_the_parameters_in_a_larger_checkpoint_are_read(path, wrapper):
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
    "of Lightning": "model.",
    "of Lightning, of a compiled one": "lit.vae._orig_mod.",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_names_of_wrapped_models_are_read(path, prefix, wrapper):
    named = {f"{prefix}{name}": value for name, value in PARAMETERS.items()}
    torch.save({wrapper: named} if wrapper else named, path)
    model = VAE(z_dim=3)
    load_model(model, path)
    assert holds(model, PARAMETERS)


def compiled_parts(model):
    """Compile only the networks, the encoder's layers one by one."""
    model.enc.net = nn.Sequential(*(torch.compile(layer) for layer in model.enc.net))
    model.dec = torch.compile(model.dec)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [torch.compile, nn.DataParallel, lambda x: nn.DataParallel(torch.compile(x)), compiled_parts],
)
def test_a_wrapped_model_is_saved_under_plain_names_and_loads_any(path, tmp_path, wrap):
    plain = VAE(z_dim=3)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    wrapped = wrap(plain)
    assert wrapped.state_dict().keys() != before.keys()
    save_model(wrapped, path)
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == before.keys()
    # The file of save_model, and one of torch.save with the names of the wrapped model.
    torch.save(wrapped.state_dict(), tmp_path / "by-hand.pt")
    for file in (path, tmp_path / "by-hand.pt"):
        for model in (VAE(z_dim=3), wrap(VAE(z_dim=3))):
            assert not holds(model, before)
            load_model(model, file)
            assert holds(model, before)


# Refusing.


def refused(path, model=None):
    """The message of the error that the file causes, one line that names the file."""
    with pytest.raises(UserError) as caught:
        load_model(model or VAE(z_dim=3), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
    return str(caught.value)


def test_the_error_of_an_absent_file_lists_the_models_that_exist(path):
    assert refused(path).endswith("; train first")
    for name in ("model-00030.pt", "model-00010.pt"):
        save_model(SMALL, path.with_name(name))
    assert "model-00010.pt, model-00030.pt; choose one with --iter_max" in refused(path)


def test_the_error_of_an_absent_file_says_what_else_there_is(tmp_path):
    run = RunFolder(Settings(lr_schedule="linear", iter_max=50), tmp_path)
    other = RunFolder(Settings(lr_schedule="linear", iter_max=40), tmp_path)
    for folder in (run, other):
        folder.path.mkdir()
    checkpoint.save({"training": {"step": 26}}, run.state)
    assert "--resume 1 continues the run from step 26" in refused(run.model(50))
    assert "--resume" not in refused(run.model(20))
    assert f"{other.path.name} is a run of another --iter_max" in refused(run.model(50))
    run.model(50).with_suffix(".pth").touch()
    assert "rename model-00050.pth" in refused(run.model(50))


def test_a_file_of_another_format_is_named(path):
    tensors = {name: value.numpy() for name, value in PARAMETERS.items()}
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    traced = torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2))
    for name, write in {
        "safetensors": lambda: path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4)),
        "NumPy": lambda: np.savez(path, **tensors),
        "TorchScript": lambda: torch.jit.save(traced, str(path)),
    }.items():
        write()
        if name == "NumPy":  # which adds an ending to the name
            path.with_name(f"{path.name}.npz").rename(path)
        sentence = refused(path)
        assert f"a file of {name};" in sentence and "damaged" not in sentence


def test_a_file_of_another_z_or_other_networks_is_not_called_damaged(path):
    for other in (VAE(z_dim=4), nn.Linear(2, 3)):
        save_model(other, path)
        sentence = refused(path)
        assert f"{path} does not fit these networks or this --z: " in sentence
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
        {f"vae{i}.{name}": value for i, (name, value) in enumerate(PARAMETERS.items())},
        {f"{name}.module": value for name, value in PARAMETERS.items()},
    ],
)
def test_other_contents_are_refused(path, content):
    torch.save(content, path)
    assert "damaged" not in refused(path)


@pytest.mark.parametrize(
    "content", [[1, 2], {1, 2}, None, "a text", torch.zeros(2), SMALL, {"weights": np.zeros(3)}]
)
def test_a_file_of_anything_but_tensors_by_name_is_refused_with_advice(path, content):
    torch.save(content, path)
    assert "state_dict" in refused(path)


def test_an_entry_that_is_marked_a_folder_is_refused(path):
    """torch.load reads other values for such an entry, without an error."""
    with zipfile.ZipFile(SMALL_FILE) as archive, zipfile.ZipFile(path, "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith("data/0"):
                entry.external_attr |= 0x10
            changed.writestr(entry, content)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["z_prior_v", "dec.net.4.bias"])
def test_values_that_are_not_finite_are_refused(path, name, value):
    parameters = {name: value.clone() for name, value in PARAMETERS.items()}
    parameters[name][-1] = value
    torch.save(parameters, path)
    assert "not finite" in refused(path)


def test_a_file_cut_at_any_place_is_refused(path):
    content = SMALL_FILE.getvalue()
    for length in {*range(0, len(content), 29), 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert "damaged" in refused(path, nn.Linear(20, 10))


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
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(map(torch.equal, model.parameters(), SMALL.parameters()))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", ["z_prior_m", "epoch"])  # among the parameters or beside them
def test_nothing_in_a_file_is_executed(path, tmp_path, name, new):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(
        {"state_dict": PARAMETERS, "epoch": 3} | {name: Trap()},
        path,
        _use_new_zipfile_serialization=new,
    )
    assert "not loaded" in refused(path)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_cannot_be_read_raises_an_os_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)


def test_content_that_cannot_be_written_leaves_the_old_file(path):
    save_model(SMALL, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        checkpoint.save({"a function": lambda: None}, path)
    assert path.read_bytes() == before
