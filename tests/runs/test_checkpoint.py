"""Models and training states in files: writing, reading and refusing them."""

import io
import os
import zipfile
from contextlib import suppress
from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from torch import nn

from codebase.models.vae import VAE
from codebase.runs import checkpoint
from codebase.runs.checkpoint import load_model, plain_parameters
from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.errors import UserError

PARAMETERS = plain_parameters(VAE(z_dim=3))
# Damage does not depend on the size of the model, and a small one can be damaged often.
SMALL, SMALL_FILE = nn.Linear(20, 10), io.BytesIO()
torch.save(SMALL.state_dict(), SMALL_FILE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model-00020.pt"


def gives_parameters(path, model=None):
    """Whether a model, by default a new one, has PARAMETERS after it has read the file."""
    model = model or VAE(z_dim=3)
    load_model(model, path)
    return all(map(torch.equal, model.state_dict().values(), PARAMETERS.values()))


def test_a_model_is_a_plain_state_dict_with_the_same_bytes_under_any_name(path, tmp_path):
    """A wrapped model is saved under plain names, too, and loads any."""
    wrapped = nn.DataParallel(VAE(z_dim=3))  # torch.compile wraps in the same way
    checkpoint.save(PARAMETERS, path)
    assert gives_parameters(path) and gives_parameters(path, wrapped)
    checkpoint.save(plain_parameters(wrapped), tmp_path / "other.pt")
    assert path.read_bytes() == (tmp_path / "other.pt").read_bytes()
    state = torch.load(path, weights_only=True)
    assert type(state) is dict and state.keys() == PARAMETERS.keys()
    torch.save(wrapped.state_dict(), path)
    assert gives_parameters(path, nn.DataParallel(VAE(z_dim=3)))


# Prefixes of compiled and parallel models, and of Lightning.
PREFIXES = ("_orig_mod.", "module.", "module._orig_mod.", "model.", "lit.vae._orig_mod.")
KEYS = ("model_state_dict", "state_dict", "model", "net")


@pytest.mark.parametrize(
    ("prefix", "key"), [*product(PREFIXES, (None, "state_dict")), *product([""], KEYS)]
)
def test_parameters_of_wrapped_models_and_in_larger_checkpoints_are_read(path, prefix, key):
    """Their order does not matter."""
    named = {f"{prefix}{name}": value for name, value in reversed(PARAMETERS.items())}
    others = {"epoch": 3, "optimizer_state_dict": {"state": {}}, "loss": torch.tensor(torch.nan)}
    torch.save({**others, key: named} if key else named, path)
    assert gives_parameters(path)


def refused(path, model=None):
    """The message of the error that the file causes, one line, without the file's name in it."""
    with pytest.raises(UserError) as caught:
        load_model(model or VAE(z_dim=3), path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "")


def test_the_error_of_an_absent_file_says_what_there_is(tmp_path):
    linear = Settings(lr_schedule="linear", iter_max=50)
    run, other = RunFolder(linear, tmp_path), RunFolder(linear._replace(iter_max=40), tmp_path)
    assert refused(run.model(50)).endswith("; train first")
    run.path.mkdir()
    other.path.mkdir()
    for file in (run.model(30), run.model(10), run.model(50).with_suffix(".pth")):
        file.touch()
    checkpoint.save({"training": {"step": 26}}, run.state)
    sentence = refused(run.model(50))
    hints = ("model-00010.pt, model-00030.pt; ", "--iter_max", "model-00050.pth", other.path.name)
    assert all(hint in sentence for hint in (*hints, "--resume 1", "step 26"))
    assert run.path.name not in sentence and "--resume" not in refused(run.model(20))


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_a_file_of_another_format_is_named(path):
    safetensors = b'\x0c\0\0\0\0\0\0\0{"x":{"d":1}}'
    for name, content in (("safetensors", safetensors), ("HDF5", b"\x89HDF")):
        path.write_bytes(content + b"\r\n\x1a\n")
        assert name in refused(path)
    np.savez(file := io.BytesIO(), x=np.zeros(3))
    path.write_bytes(file.getvalue())
    assert "NumPy" in refused(path)
    torch.jit.save(torch.jit.script(nn.Identity()), path)
    assert "TorchScript" in refused(path)


OTHERS = [
    *(VAE(z_dim=4).state_dict(), {}, {"model_state_dict": [1, 2]}),
    {name: value for name, value in PARAMETERS.items() if name != "z_prior_m"},
    *(PARAMETERS | {"extra": torch.zeros(1)}, PARAMETERS | {"z_prior_m": torch.zeros(1, 1)}),
    {f"vae{i}.{name}": value for i, (name, value) in enumerate(PARAMETERS.items())},
    {f"{name}.module": value for name, value in PARAMETERS.items()},
]
NOT_NAMED = [[1, 2], None, "a text", torch.zeros(2), SMALL, {"weights": np.zeros(3)}]


@pytest.mark.parametrize("content", [*OTHERS, *NOT_NAMED])
def test_other_parameters_and_other_objects_are_refused_with_different_advice(path, content):
    torch.save(content, path)
    sentence, is_other = refused(path), any(content is other for other in OTHERS)
    assert ("--z" in sentence) == is_other
    assert ("state_dict" in sentence and "damaged" in sentence) != is_other


def test_an_entry_that_is_marked_a_folder_is_refused(path):
    """torch.load reads other values for such an entry, without an error."""
    with zipfile.ZipFile(SMALL_FILE) as archive, zipfile.ZipFile(path, "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            entry.external_attr |= 0x10 if entry.filename.endswith("data/0") else 0
            changed.writestr(entry, content)
    assert "damaged" in refused(path, nn.Linear(20, 10))


@pytest.mark.parametrize("name, value", [("z_prior_v", torch.nan), ("dec.net.4.bias", torch.inf)])
def test_values_that_are_not_finite_are_refused(path, name, value):
    changed = PARAMETERS[name].index_fill(0, torch.tensor([0]), value)
    torch.save(PARAMETERS | {name: changed}, path)
    assert "not finite" in refused(path)


def test_a_file_cut_at_any_place_is_refused(path):
    content = SMALL_FILE.getvalue()
    for length in {*range(0, len(content), 29), 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert "damaged" in refused(path, nn.Linear(20, 10))


def test_flipped_bits_are_refused_or_change_no_value(path):
    random = Random(0)
    for _ in range(200):
        content, model = bytearray(SMALL_FILE.getvalue()), nn.Linear(20, 10)
        for place in random.sample(range(8 * len(content)), random.randint(1, 4)):
            content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with suppress(UserError):
            load_model(model, path)
            assert all(map(torch.equal, model.parameters(), SMALL.parameters()))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", ["z_prior_m", "epoch"])  # among the parameters or beside them
def test_nothing_in_a_file_is_executed(path, tmp_path, name, new):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    content = {"state_dict": PARAMETERS, "epoch": 3} | {name: Trap()}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    assert "not loaded" in refused(path)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)
