"""The networks against a forward pass in plain numpy, with the weights of their `state_dict`."""

import math

import numpy as np
import pytest
import torch
from conftest import NETWORKS

from codebase.models import nns
from codebase.models.vae import VAE

LAYERS = (0, 2, 4)
SIZES = {"enc": (784, 300, 300, 2 * 10), "dec": (10, 300, 300, 784)}


def forward(model, network, x):
    """Three fully connected layers with ELU(x) = x above 0 and exp(x) - 1 below, in float64."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    h = x.double().numpy()
    for layer in LAYERS:
        h = h @ state[f"{network}.net.{layer}.weight"].T + state[f"{network}.net.{layer}.bias"]
        if layer != LAYERS[-1]:
            h = np.where(h > 0, h, np.exp(np.minimum(h, 0)) - 1)
    return torch.from_numpy(h).float()


def test_networks_are_three_layers_with_elu_then_mean_and_variance_or_logits():
    """Large weights move units away from 0, where activation functions differ most."""
    model = VAE(nn="v1", z_dim=10).requires_grad_(False)
    for network in (model.enc, model.dec):
        for parameter in network.parameters():
            parameter.mul_(3 if parameter.dim() == 2 else 20)
    near = {"rtol": 1e-4, "atol": 1e-4}
    x, z = torch.rand(6, 784).round(), 2 * torch.randn(6, 10)
    m, v = model.enc.encode(x)
    h = forward(model, "enc", x)
    assert h[:, 10:].min() < -2 and h[:, 10:].max() > 2  # both branches of softplus
    torch.testing.assert_close(m, h[:, :10], **near)
    torch.testing.assert_close(v, h[:, 10:].exp().log1p() + 1e-8, **near)
    logits = model.dec.decode(z)
    torch.testing.assert_close(logits, forward(model, "dec", z), **near)
    # Hand-outs since 2021 call the networks.
    assert torch.equal(model.dec(z), logits)
    assert all(map(torch.equal, model.enc(x), (m, v)))


@pytest.mark.parametrize("network", SIZES)
def test_layers_have_the_assignments_sizes_and_pytorchs_initial_weights(network):
    """By default, weights and biases are uniform within 1 / sqrt(inputs)."""
    state = VAE(nn="v1", z_dim=10).state_dict()
    sizes = SIZES[network]
    for layer, inputs, outputs in zip(LAYERS, sizes, sizes[1:], strict=False):
        weight, bias = (state[f"{network}.net.{layer}.{part}"] for part in ("weight", "bias"))
        assert weight.shape == (outputs, inputs) and bias.shape == (outputs,)
        limit = 1 / math.sqrt(inputs)
        for values in (weight.flatten(), bias):
            n = len(values)
            assert limit * (1 - 10 / n) < values.abs().max() <= limit
            # A uniform number within 1 has variance 1 / 3, and its square 4 / 45.
            assert abs(values.mean()) < 5 * limit / math.sqrt(3 * n)
            assert abs((values / limit).square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


def test_initial_weights_come_from_the_global_generator():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([value.flatten() for value in VAE().state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    # All but the two parameters of the prior differ.
    assert (weights(1) != weights(2)).sum() == len(weights(1)) - 2


@pytest.fixture
def more_networks(tmp_path, monkeypatch):
    """A folder whose files count as networks of the project, beside those of the tests."""
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS), str(tmp_path)])
    return tmp_path


def test_a_new_file_adds_networks_which_are_attributes(more_networks):
    assert nns.names() == ["tiny", "v1"]
    for name in ("tiny", "v1"):
        model = VAE(nn=name, z_dim=3)
        assert type(model.enc) is getattr(nns, name).Encoder
        assert type(model.dec) is getattr(nns, name).Decoder


def test_an_unknown_name_is_an_error_with_the_known_names(more_networks):
    for name in ("v9", "V1", "", "v1.Encoder"):
        with pytest.raises(AttributeError, match=f"{name!r}.*tiny, v1"):
            VAE(nn=name)


def test_a_mistake_in_networks_keeps_its_own_error(more_networks):
    (more_networks / "mistaken.py").write_text("WIDTH = None.width\n")
    with pytest.raises(AttributeError, match="no attribute 'width'"):
        VAE(nn="mistaken")
