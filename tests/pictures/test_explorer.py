"""The content of the explorer page."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from drawn import numbered_images, random_model, rounded
from torch import nn
from torch.distributions import Normal, kl_divergence

from codebase.evaluate import bounds
from codebase.models.vae import VAE
from codebase.pictures import explorer
from codebase.system.errors import UserError
from codebase.utils import gaussian_parameters

TITLE = "z = 10, lr = 0.002</script><script>alert('&amp;')</script><!-- \u03b7"


class Page(HTMLParser):
    """The scripts of the page, as a browser finds them: the content and the program."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.inside = [], False
        self.feed(text)
        content, self.program = self.scripts
        self.content = json.loads(content)

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def write(images, tmp_path_factory):
    """Write a page, and read it again."""

    def write(model, title="any"):
        path = tmp_path_factory.mktemp("explorer") / "explorer.html"
        explorer.write(model, images, title, path)
        return Page(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture(scope="module")
def model():
    return random_model(10)


@pytest.fixture(scope="module")
def page(write, model):
    return write(model, TITLE)


@pytest.fixture(scope="module")
def x(images):
    """The bits of all test images."""
    return images.test_bits


def numbers(text, kind="<f4"):
    """Decode numbers that the page holds as text; torch.tensor makes a writable copy."""
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def through(layers, h):
    """Apply the layers of the page to h (batch, inputs)."""
    for layer in layers:
        if "alpha" in layer:
            h = torch.where(h > 0, h, layer["alpha"] * (h.exp() - 1))
        else:
            h = h @ weight(layer).view(-1, h.shape[1]).T + numbers(layer["bias"])
    return h


def weight(layer):
    """The weights of a layer of the page."""
    return numbers(layer["weight"], "<i2") * layer["step"]


def unpacked(text):
    """Decode bits (1000, 784) that the page holds, eight to a byte."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return torch.tensor(np.unpackbits(packed)).view(-1, 784)


def assert_page_computes(page, model, x):
    near = {"rtol": 1e-4, "atol": 1e-5}
    m, v = model.enc.encode(x)
    posterior = gaussian_parameters(through(page.content["encoder"], x))
    torch.testing.assert_close(posterior, (m, v), **near)
    logits = through(page.content["decoder"], m)
    torch.testing.assert_close(logits, model.dec.decode(m), **near)


def test_the_page_holds_the_networks(page, model, x):
    assert_page_computes(page, model, x[:100])


class Decoder(nn.Module):
    """A decoder around any layers."""

    def __init__(self, *layers):
        super().__init__()
        self.any_name = nn.Sequential(*layers)

    def decode(self, z):
        return self.any_name(z)


class Encoder(Decoder):
    """An encoder around any layers."""

    def encode(self, x):
        return gaussian_parameters(self.any_name(x))


def test_the_page_holds_any_networks_of_linear_layers_and_elu(write, x):
    model = VAE(z_dim=2)
    model.enc = Encoder(nn.Linear(784, 20), nn.ELU(2.0), nn.Linear(20, 4, bias=False))
    model.dec = Decoder(nn.Linear(2, 784))
    assert_page_computes(write(rounded(model)), model, x[:100])


def test_the_weights_of_the_page_give_the_same_bound(write, x):
    model = VAE(z_dim=10).requires_grad_(False)
    content = write(model).content
    before = bounds(model, x[:1000])
    for name, network in ("encoder", model.enc), ("decoder", model.dec):
        linear = [layer for layer in content[name] if "alpha" not in layer]
        for layer, ours in zip(linear, network.net[::2], strict=True):
            ours.weight.copy_(weight(layer).view_as(ours.weight))
    assert bounds(model, x[:1000])[:3] == pytest.approx(before[:3], abs=0.01)


class Skipping(Decoder):
    """Adds something to the output of its layers."""

    def decode(self, z):
        return super().decode(z) + z.sum(-1, keepdim=True)


class Squaring(Decoder):
    """Passes something else than z to its layers."""

    def decode(self, z):
        return super().decode(torch.cat([z, z.square()], -1))


class Bounded(Encoder):
    """Transforms the means that its layers compute."""

    def encode(self, x):
        m, v = super().encode(x)
        return m.tanh(), v


class Noisy(nn.Linear):
    """A subclass of a known layer."""


@pytest.mark.parametrize(
    "network",
    [
        Decoder(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 784)),
        Decoder(Noisy(2, 784)),
        Skipping(nn.Linear(2, 784)),
        Squaring(nn.Linear(4, 784)),
        Encoder(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 4)),
        Bounded(nn.Linear(784, 4)),
    ],
)
def test_networks_that_the_page_cannot_compute_are_refused(images, tmp_path, network):
    model = VAE(z_dim=2)
    setattr(model, "enc" if isinstance(network, Encoder) else "dec", network)
    with pytest.raises(UserError, match="linear layers and ELU"):
        explorer.write(model, images, "none", tmp_path / "explorer.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_holds_the_subset_and_others_from_the_whole_data_set(page, images, x):
    content = page.content
    indices = torch.tensor(content["indices"])
    assert len(indices) == 1000
    assert indices[:100].equal(images.subset_indices)
    assert len(indices.unique()) == 999  # The assignment's subset has one image twice.
    assert indices[100:].diff().min() > 0 and indices[100:].diff().max() < 20
    assert indices[100] < 20 and indices[-1] > 9980
    assert content["dataset"] == "numbered"
    assert content["labels"] == images.test_labels[indices].tolist()
    pixels = unpacked(content["inked"])
    pixels[pixels > 0] = numbers(content["pixels"], np.uint8)
    assert pixels.equal(images.test[indices])
    bits = unpacked(content["bits"]).float()
    assert bits[:100].equal(images.subset_bits)
    assert bits[100:].equal(x[indices[100:]])


def test_the_page_holds_the_prior_and_the_mean_kl_of_each_dimension(page, model, x):
    m, v = model.enc.encode(x)
    kl = kl_divergence(Normal(m, v.sqrt()), Normal(0, 1)).mean(0)
    assert page.content["kl"] == pytest.approx(kl.tolist(), rel=1e-4)
    assert page.content["prior"] == [0, 1]


def test_sliders_include_every_posterior_mean_and_the_prior(page, write, model, x):
    furthest = model.enc.encode(x)[0].abs().max().item()
    assert furthest > 4
    assert furthest <= page.content["limit"] < furthest + 1
    near = random_model(3)
    with torch.no_grad():
        near.enc.net[4].weight.mul_(0.01)
        near.enc.net[4].bias.mul_(0.01)
    assert write(near).content["limit"] == 4


def plane_of(page):
    """The origin, directions, points and labels of the map's plane."""
    plane = page.content["plane"]
    directions = torch.stack([numbers(direction) for direction in plane["directions"]])
    return (
        numbers(plane["origin"]),
        directions,
        numbers(plane["points"]).view(-1, 2),
        plane["labels"],
    )


def means_of_shown(model, images, x, page):
    indices = torch.tensor(page.content["indices"])
    return model.enc.encode(torch.cat([images.subset_bits, x[indices[100:]]]))[0]


def test_the_map_is_the_plane_of_the_two_principal_components(page, model, images, x):
    origin, directions, points, labels = plane_of(page)
    near = {"rtol": 1e-4, "atol": 1e-4}
    m, _ = model.enc.encode(x)
    torch.testing.assert_close(origin, m.mean(0), **near)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2), **near)
    variances = torch.linalg.svdvals(m - m.mean(0)).square() / (len(m) - 1)
    torch.testing.assert_close((m @ directions.T).var(0), variances[:2], rtol=1e-3, atol=0)
    shares = (variances / variances.sum()).tolist()
    assert labels == [
        f"principal component {i} ({share:.0%} of variance)"
        for i, share in ((1, shares[0]), (2, shares[1]))
    ]
    shown = means_of_shown(model, images, x, page)
    torch.testing.assert_close(points, (shown - m.mean(0)) @ directions.T, **near)


def test_the_map_of_two_dimensions_is_their_plane(write, images, x):
    model = random_model(2)
    page = write(model)
    origin, directions, points, labels = plane_of(page)
    assert not origin.any() and directions.equal(torch.eye(2)) and labels == ["z1", "z2"]
    torch.testing.assert_close(points, means_of_shown(model, images, x, page))


def test_the_map_of_one_dimension_is_a_line(write, images, x):
    model = random_model(1)
    page = write(model)
    origin, directions, points, labels = plane_of(page)
    assert not origin.any() and directions.tolist() == [[1], [0]] and labels[0] == "z1"
    torch.testing.assert_close(points[:, :1], means_of_shown(model, images, x, page))
    assert not points[:, 1].any()


def test_a_title_cannot_end_the_element_that_holds_it(page):
    assert page.content["title"] == TITLE
    assert len(page.scripts) == 2 and "alert" not in page.program


def test_the_page_is_a_single_file_that_loads_no_other(images, model, tmp_path):
    explorer.write(model, images, TITLE, tmp_path / "explorer.html")
    assert [path.name for path in tmp_path.iterdir()] == ["explorer.html"]
    text = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert "{{" not in text
    assert not re.search(r"https?://|\bsrc=|\bhref=|@import|url\(", text)
    assert (tmp_path / "explorer.html").stat().st_size <= 2_700_000
