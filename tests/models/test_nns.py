"""The networks against a forward pass in plain numpy, with the weights of their `state_dict`."""

import math
import sys

import numpy as np
import pytest
import torch

from codebase.models import nns
from codebase.models.vae import VAE

LAYERS = (0, 2, 4)
SIZES = {"enc": (784, 300, 300, 2 * 10), "dec": (10, 300, 300, 784)}


@pytest.fixture
def model():
    """A model whose units are far from 0, where activation functions differ most."""
    model = VAE(nn="v1", z_dim=10).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(3)
        elif name.endswith("bias"):
            parameter.mul_(20)
    return model


def forward(model, network, x):
    """Three fully connected layers with ELU(x) = x above 0 and exp(x) - 1 below, in float64."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    h = x.double().numpy()
    for layer in LAYERS:
        h = h @ state[f"{network}.net.{layer}.weight"].T + state[f"{network}.net.{layer}.bias"]
        if layer != LAYERS[-1]:
            h = np.where(h > 0, h, np.exp(np.minimum(h, 0)) - 1)
    return h


def close(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_encoder_is_three_layers_with_elu_then_mean_and_variance(model):
    x = torch.rand(6, 784).round()
    kept = x.clone()
    m, v = model.enc.encode(x)
    h = forward(model, "enc", x)
    assert h[:, 10:].min() < -2  # both branches of softplus are tested
    assert h[:, 10:].max() > 2
    close(m, h[:, :10])
    close(v, np.log1p(np.exp(h[:, 10:])) + 1e-8)
    assert torch.equal(x, kept)


def test_decoder_is_three_layers_with_elu_then_logits(model):
    z = 2 * torch.randn(6, 10)
    kept = z.clone()
    close(model.dec.decode(z), forward(model, "dec", z))
    assert torch.equal(z, kept)


def test_each_image_is_computed_independently(model):
    x, z = torch.rand(5, 784).round(), torch.randn(5, 10)
    torch.testing.assert_close(model.dec.decode(z)[2:3], model.dec.decode(z[2:3]))
    for whole, alone in zip(model.enc.encode(x), model.enc.encode(x[2:3]), strict=True):
        torch.testing.assert_close(whole[2:3], alone)


@pytest.mark.parametrize("network", SIZES)
def test_layers_have_the_assignments_sizes_and_pytorchs_initial_weights(network):
    """By default, weights and biases are uniform within 1 / sqrt(inputs)."""
    state = VAE(nn="v1", z_dim=10).state_dict()
    sizes = SIZES[network]
    for layer, inputs, outputs in zip(LAYERS, sizes, sizes[1:], strict=False):
        weight, bias = (state[f"{network}.net.{layer}.{part}"] for part in ("weight", "bias"))
        assert weight.shape == (outputs, inputs)
        assert bias.shape == (outputs,)
        limit = 1 / math.sqrt(inputs)
        for values in (weight.flatten(), bias):
            n = len(values)
            assert values.abs().max() <= limit
            assert values.abs().max() > limit * (1 - 10 / n)
            assert abs(values.mean()) < 5 * limit / math.sqrt(3 * n)
            # The square of a uniform number within 1 has mean 1 / 3 and variance 4 / 45.
            square = (values / limit).square().mean()
            assert abs(square - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


def test_initial_weights_come_from_the_global_generator():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([value.flatten() for value in VAE().state_dict().values()])

    first, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(first, again)
    # All but the two parameters of the prior.
    assert (first != other).sum() == len(first) - 2


def test_calling_a_network_encodes_or_decodes(model):
    """Hand-outs since 2021 call the networks."""
    x, z = torch.rand(6, 784).round(), torch.randn(6, 10)
    assert torch.equal(model.dec(z), model.dec.decode(z))
    called, encoded = model.enc(x), model.enc.encode(x)
    assert len(called) == len(encoded) == 2
    assert all(map(torch.equal, called, encoded))


@pytest.fixture
def more_networks(tmp_path, monkeypatch):
    """A folder whose files count as networks of the project."""
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(tmp_path)])
    kept = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - kept:
        if name.startswith(f"{nns.__name__}."):
            del sys.modules[name]
            vars(nns).pop(name.rpartition(".")[2], None)


def test_networks_are_attributes():
    """Every public solution relies on that."""
    assert getattr(nns, "v1").__name__ == "codebase.models.nns.v1"  # noqa: B009
    model = VAE(nn="v1", z_dim=3)
    assert isinstance(model.enc, nns.v1.Encoder)
    assert isinstance(model.dec, nns.v1.Decoder)


def test_a_new_file_adds_networks(more_networks):
    assert nns.names() == ["v1"]
    for name in ("other", "another"):
        (more_networks / f"{name}.py").write_text(
            "from torch import nn\n"
            "class Encoder(nn.Linear):\n"
            "    def __init__(self, z_dim): super().__init__(784, 2 * z_dim)\n"
            "class Decoder(nn.Linear):\n"
            "    def __init__(self, z_dim): super().__init__(z_dim, 784)\n"
        )
    assert nns.names() == ["another", "other", "v1"]
    model = VAE(nn="other", z_dim=3)
    assert type(model.enc) is nns.other.Encoder
    assert type(model.dec) is nns.other.Decoder
    assert (model.enc.out_features, model.dec.in_features) == (6, 3)


def test_an_unknown_name_is_an_error_with_the_known_names(more_networks):
    (more_networks / "other.py").touch()
    for name in ("v9", "V1", "", "v1.Encoder"):
        with pytest.raises(AttributeError, match=f"{name!r}.*other, v1"):
            VAE(nn=name)
    assert not hasattr(nns, "__wrapped__")  # Python's own machinery tests this for any module


def test_a_mistake_in_networks_keeps_its_own_error(more_networks):
    (more_networks / "mistaken.py").write_text("WIDTH = None.width\n")
    with pytest.raises(AttributeError, match="no attribute 'width'") as caught:
        VAE(nn="mistaken")
    assert caught.traceback[-1].path == more_networks / "mistaken.py"
    (more_networks / "lacking.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing_of_this_name'"):
        VAE(nn="lacking")
