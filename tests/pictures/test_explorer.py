"""The content of the explorer page, read from its file."""

import json
import re

import numpy as np
import pytest
import torch
from drawn import decoded, random_model
from torch import nn

from codebase.models.vae import VAE
from codebase.pictures import explorer
from codebase.pictures.latent import principal_components
from codebase.system.errors import UserError

pytestmark = pytest.mark.slow
pytest_plugins = ["drawn"]


def content_of(path):
    """The data in the file of a page."""
    return json.loads(re.search(r'id="content">(.*?)</script>', path.read_text("utf-8"))[1])


class Noisy(nn.Linear):
    """A subclass of a known layer."""


@pytest.mark.parametrize(
    ("decode", "layers"),
    [
        (lambda net, z: net(z), [nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 784)]),
        (lambda net, z: net(z), [Noisy(2, 784)]),
        (lambda net, z: net(z) + z.sum(-1, keepdim=True), [nn.Linear(2, 784)]),
        (lambda net, z: net(torch.cat([z, z * z], -1)), [nn.Linear(4, 784)]),
    ],
)
def test_networks_that_the_page_cannot_compute_are_refused(images, tmp_path, decode, layers):
    model = VAE(z_dim=2)
    model.dec.net = nn.Sequential(*layers)
    model.dec.decode = lambda z: decode(model.dec.net, z)
    with pytest.raises(UserError, match="ELU"):
        explorer.write(model, images, "none", tmp_path / "explorer.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_a_single_file_with_images_from_the_whole_data_set(images, tmp_path):
    path = tmp_path / "explorer.html"
    explorer.write(random_model(10), images, "a run", path)
    assert not re.search(r"https?://|\bsrc=|\bhref=|@import|url\(|{{", path.read_text("utf-8"))
    assert path.stat().st_size <= 2_700_000
    content = content_of(path)
    indices = torch.tensor(content["indices"])
    assert len(indices) == 1000 and indices[:100].equal(images.subset_indices)
    assert len(indices.unique()) == 999  # The assignment's subset has one image twice.
    assert indices[100:].diff().min() > 0 and indices[100:].diff().max() < 20
    assert indices[100] < 20 and indices[-1] > 9980
    assert content["labels"] == images.test_labels[indices].tolist()
    inked, bits = (
        torch.from_numpy(np.unpackbits(decoded(content[name], "u1").numpy()).reshape(1000, 784))
        for name in ("inked", "bits")
    )
    pixels = torch.zeros(1000, 784, dtype=torch.uint8)
    pixels[inked > 0] = decoded(content["pixels"], "u1")
    assert pixels.equal(images.test[indices])
    assert bits.equal(torch.cat([images.subset_bits, images.test_bits[indices[100:]]]).byte())


@pytest.mark.parametrize("z", [1, 2, 10])
def test_the_map_is_a_plane_of_the_latent_space(images, tmp_path, z):
    """The plane of two dimensions, or of the principal components if there are more."""
    model = random_model(z)
    if z == 1:
        for parameter in model.enc.net[4].parameters():
            parameter.mul_(0.01)  # All means are near 0.
    explorer.write(model, images, "a run", tmp_path / "explorer.html")
    content = content_of(tmp_path / "explorer.html")
    plane = content["plane"]
    origin, directions = decoded(plane["origin"]), torch.stack([*map(decoded, plane["directions"])])
    m, _ = model.enc.encode(images.test_bits)
    near = {"rtol": 1e-4, "atol": 1e-4}
    if z > 2:
        components, shares = principal_components(m)
        torch.testing.assert_close((origin, directions), (m.mean(0), components.T), **near)
        for share, label in zip(shares, plane["labels"], strict=True):
            assert f"{share:.0%}" in label
    else:
        assert not origin.any() and directions.equal(torch.eye(2, z))
        assert plane["labels"][:z] == ["z1", "z2"][:z]
    shown = torch.cat([model.enc.encode(images.subset_bits)[0], m[content["indices"][100:]]])
    points = decoded(plane["points"]).view(-1, 2)
    torch.testing.assert_close(points, (shown - origin) @ directions.T, **near)
    # The sliders reach the farthest mean, and all of the prior that matters.
    assert 0 <= content["limit"] - max(m.abs().max(), 4 if z == 1 else 0) < 1
