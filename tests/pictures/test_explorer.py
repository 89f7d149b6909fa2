"""What is written into the page to walk through the latent space."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from drawn import lively, numbered_images
from torch import nn
from torch.distributions import Normal, kl_divergence

from codebase.data import subset_rows
from codebase.evaluate import all_images, subset_images
from codebase.models.vae import VAE
from codebase.pictures import explorer
from codebase.system.errors import UserError
from codebase.utils import gaussian_parameters

TITLE = "model=vae_z=10_lr=0.002</script><script>alert('&amp;')</script><!-- \u03b7"


class Page(HTMLParser):
    """The page as a browser divides it: its scripts, its styles and its policy."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.policy, self.inside = {"script": [], "style": []}, "", ""
        self.feed(text)
        content, self.program = self.texts["script"]
        self.content = json.loads(content)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag in self.texts:
            self.texts[tag].append("")
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def write(images, tmp_path_factory):
    """Write a page and give it as it was read again."""

    def write(model, title="any"):
        path = tmp_path_factory.mktemp("explorer") / "explorer.html"
        explorer.write(model, images, title, path)
        return Page(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture(scope="module")
def model():
    return lively(10)


@pytest.fixture(scope="module")
def page(write, model):
    return write(model, TITLE)


@pytest.fixture(scope="module")
def x(images):
    """The bits of all test images."""
    return all_images(images)


def numbers(text, kind="<f4"):
    """What the page holds as text; torch.tensor makes a copy that may be written."""
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def through(layers, h):
    """What layers as the page holds them compute from h (batch, inputs)."""
    for layer in layers:
        if "alpha" in layer:
            h = torch.where(h > 0, h, layer["alpha"] * (h.exp() - 1))
        else:
            h = h @ numbers(layer["weight"]).view(-1, h.shape[1]).T + numbers(layer["bias"])
    return h


def assert_computes(page, model, x):
    near = {"rtol": 1e-4, "atol": 1e-5}
    m, v = model.enc.encode(x)
    posterior = gaussian_parameters(through(page.content["encoder"], x))
    torch.testing.assert_close(posterior, (m, v), **near)
    logits = through(page.content["decoder"], m)
    torch.testing.assert_close(logits, model.dec.decode(m), **near)


def test_the_page_holds_the_networks(page, model, x):
    assert_computes(page, model, x[:100])


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


def test_it_holds_any_networks_of_linear_layers_and_elu(write, x):
    model = VAE(z_dim=2)
    model.enc = Encoder(nn.Linear(784, 20), nn.ELU(2.0), nn.Linear(20, 4, bias=False))
    model.dec = Decoder(nn.Linear(2, 784))
    assert_computes(write(model), model, x[:100])


class Skipping(Decoder):
    """Adds something to its layers."""

    def decode(self, z):
        return super().decode(z) + z.sum(-1, keepdim=True)


class Squaring(Decoder):
    """Feeds its layers with something else than z."""

    def decode(self, z):
        return super().decode(torch.cat([z, z.square()], -1))


class Bounded(Encoder):
    """Does more with its layers' means than others do."""

    def encode(self, x):
        m, v = super().encode(x)
        return m.tanh(), v


class Noisy(nn.Linear):
    """A layer with a name of its own."""


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


def test_a_model_too_large_for_a_page_is_refused(images, tmp_path):
    model = VAE(z_dim=2)
    model.dec = Decoder(nn.Linear(2, 6000), nn.Linear(6000, 784))
    for refuse in (
        lambda: explorer.write(model, images, "large", tmp_path / "x.html"),
        lambda: explorer.check(model),  # before it is trained
    ):
        with pytest.raises(UserError, match=r"the model has 5,\d{3},\d{3} parameters, and "):
            refuse()
    assert list(tmp_path.iterdir()) == []


def test_it_holds_the_assignments_images_and_others_of_all_parts(page, images, x):
    content = page.content
    rows = torch.tensor(content["rows"])
    assert len(rows) == 1000
    assert rows[:100].equal(subset_rows(images.test_labels))
    assert len(rows.unique()) == 999  # the assignment has one twice
    assert rows[100:].diff().min() > 0 and rows[100:].diff().max() < 20
    assert rows[100] < 20 and rows[-1] > 9980
    assert content["data"] == "numbered"
    assert content["digits"] == images.test_labels[rows].tolist()
    assert numbers(content["pixels"], np.uint8).view(1000, 784).equal(images.test[rows])
    eight = numbers(content["bits"], np.uint8)[:, None] >> torch.arange(7, -1, -1) & 1
    bits = eight.view(1000, 784).float()
    assert bits[:100].equal(subset_images(images))  # binarized by themselves, as they are measured
    assert bits[100:].equal(x[rows[100:]])


def test_it_holds_the_prior_and_the_mean_kl_of_each_dimension(page, model, x):
    m, v = model.enc.encode(x)
    kl = kl_divergence(Normal(m, v.sqrt()), Normal(0, 1)).mean(0)
    assert page.content["kl"] == pytest.approx(kl.tolist(), rel=1e-4)
    assert page.content["prior"] == [0, 1]


def test_sliders_reach_every_posterior_mean_and_the_prior(page, write, model, x):
    furthest = model.enc.encode(x)[0].abs().max().item()
    assert furthest > 4
    assert furthest <= page.content["reach"] < furthest + 1
    near = lively(3)
    with torch.no_grad():
        near.enc.net[4].weight.mul_(0.01)
        near.enc.net[4].bias.mul_(0.01)
    assert write(near).content["reach"] == 4


def plane_of(page):
    """The plane of the map: its origin, its two directions, the points in it, and its labels."""
    plane = page.content["plane"]
    directions = torch.stack([numbers(direction) for direction in plane["directions"]])
    return (
        numbers(plane["origin"]),
        directions,
        numbers(plane["points"]).view(-1, 2),
        plane["labels"],
    )


def means_of_shown(model, images, x, page):
    rows = torch.tensor(page.content["rows"])
    return model.enc.encode(torch.cat([subset_images(images), x[rows[100:]]]))[0]


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
    model = lively(2)
    page = write(model)
    origin, directions, points, labels = plane_of(page)
    assert not origin.any() and directions.equal(torch.eye(2)) and labels == ["z1", "z2"]
    torch.testing.assert_close(points, means_of_shown(model, images, x, page))


def test_the_map_of_one_dimension_is_a_line(write, images, x):
    model = lively(1)
    page = write(model)
    origin, directions, points, labels = plane_of(page)
    assert not origin.any() and directions.tolist() == [[1], [0]] and labels[0] == "z1"
    torch.testing.assert_close(points[:, :1], means_of_shown(model, images, x, page))
    assert not points[:, 1].any()


def test_a_title_is_held_as_it_is_and_ends_nothing(page):
    assert page.content["title"] == TITLE
    assert len(page.texts["script"]) == 2 and len(page.texts["style"]) == 1
    assert "alert" not in page.program


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(page):
    assert "'unsafe" not in page.policy
    allowed = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert allowed.pop("default-src") == "'none'"
    for element, text in (("script", page.program), ("style", page.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed.pop(f"{element}-src") == f"'sha256-{digest}'"
    assert set(allowed.values()) == {"'none'"}


def test_the_page_is_whole(page, images, model, tmp_path):
    explorer.write(model, images, TITLE, tmp_path / "explorer.html")
    assert [path.name for path in tmp_path.iterdir()] == ["explorer.html"]
    text = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert "{{" not in text
    assert not re.search(r"https?://|\bsrc=|\bhref=|@import|url\(", text)
    assert (tmp_path / "explorer.html").stat().st_size <= 5_000_000  # of ten dimensions
