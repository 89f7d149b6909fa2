"""The page to walk through the latent space, watched in a real browser."""

import json
import math
import os
import shutil

import pytest
import torch
from codebase.errors import ExplorerError
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase import evaluate, explorer
from codebase.data import subset_rows
from codebase.models.vae import VAE

TITLE = "model=vae_z=10_lr=0.002_lr_schedule=linear</script><script>alert('&amp;')</script>"
SLIDER = '#dimensions input[type="range"]'


def lively(z_dim):
    """A model whose images and posteriors vary without training."""
    torch.manual_seed(0)
    model = VAE(z_dim=z_dim)
    with torch.no_grad():
        for parameter in [*model.enc.parameters(), *model.dec.parameters()]:
            parameter.mul_(2)
        model.enc.net[4].bias[0] += 6  # far out, where a slider has to reach, too
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return lively(10)


@pytest.fixture(scope="module")
def path(model, synthetic_images, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.write(model, synthetic_images, TITLE, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("there is no Chromium with its chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1280,900",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(f"--{argument}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox does not work for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path given, Selenium looks for none and downloads none.
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def open_page(browser):
    """Open a page, and find at the end that it said nothing and asked no network for anything."""
    opened = []

    def open_page(path, width=1280, height=900, scheme="light"):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(path.as_uri())
        opened.append(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # Not those of the browser's own first page.
    urls = [r["request"]["url"] for r in requests if not r["documentURL"].startswith("chrome:")]
    assert set(urls) <= set(opened)


@pytest.fixture
def page(open_page, path):
    return open_page(path)


def find(page, selector):
    return page.find_element("css selector", selector)


def ink(page, canvas):
    """The 784 values of a canvas of 28 x 28, from 0 to 255."""
    script = """const canvas = document.getElementById(arguments[0]);
        const copy = new OffscreenCanvas(28, 28).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return Array.from(copy.getImageData(0, 0, 28, 28).data)"""
    return torch.tensor(page.execute_script(script, canvas)[3::4])


def values(page, script):
    """Numbers of the page, as PyTorch has them."""
    return torch.tensor(page.execute_script(f"return Array.from({script})"), dtype=torch.float32)


def numbers(page):
    """KL, REC and NELBO as the page shows them."""
    return [float(find(page, f"#{name}").text) for name in ("KL", "REC", "NELBO")]


def place(page):
    """The z of the page."""
    return values(page, "state.z")


def bound(model, x, z):
    """KL, REC and NELBO of x (784,) at z, by another way than the model's."""
    kl = posterior_cost(model, x).sum().item()
    rec = -Bernoulli(logits=model.dec.decode(z)).log_prob(x).sum().item()
    return kl, rec, kl + rec


def posterior_cost(model, x):
    """KL of each dimension for x (..., 784)."""
    m, v = model.enc.encode(x)
    return kl_divergence(Normal(m, v.sqrt()), Normal(0, 1))


@pytest.mark.slow
def test_the_page_computes_what_pytorch_computes(page, model, synthetic_images):
    x, z = evaluate.subset_images(synthetic_images)[::5], torch.randn(20, 10)
    script = """return arguments[0].map((x, i) => {
        const z = arguments[1][i], { m, v } = encode(x), logits = decode(z);
        const cost = sum(kl({ m, v }, prior)), nats = rec(x, logits);
        return [m, v, logits, [cost, nats, cost + nats]].map(values => Array.from(values));
    })"""
    results = page.execute_script(script, x.tolist(), z.tolist())
    m, v, logits, nats = (torch.tensor(part).float() for part in zip(*results, strict=True))
    expected_m, expected_v = model.enc.encode(x)
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(m, expected_m, **near)
    torch.testing.assert_close(v, expected_v, **near)
    torch.testing.assert_close(logits, model.dec.decode(z), **near)
    expected = torch.tensor([bound(model, *pair) for pair in zip(x, z, strict=True)])
    torch.testing.assert_close(nats, expected, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_chosen_image_is_encoded_and_its_bound_shown(page, model, synthetic_images):
    i = 37
    find(page, "#to-origin").click()
    find(page, f"#gallery label:nth-child({i + 1})").click()
    x = evaluate.subset_images(synthetic_images)[i]
    row = subset_rows(synthetic_images.test_labels)[i]
    assert ink(page, "bits").equal((255 * x).long())
    assert find(page, "#source").text == "z is a draw from the posterior."
    assert f"test image {row}, a 3" in find(page, "#explanation").text
    z = place(page)
    assert numbers(page) == pytest.approx(bound(model, x, z), abs=0.011)
    m, v = model.enc.encode(x)
    costs = posterior_cost(model, x)
    for slider in page.find_elements("css selector", SLIDER):
        j = int(slider.get_attribute("id")[1:]) - 1
        words = f"posterior mean {m[j]:.2f}, standard deviation {v[j].sqrt():.2f}"
        assert slider.get_attribute("title") == words.replace("-", "\u2212")
        shown = slider.find_element("xpath", "../following-sibling::*[2]").text
        assert float(shown) == pytest.approx(costs[j].item(), abs=0.006)
        assert float(slider.get_attribute("value")) == pytest.approx(z[j].item(), abs=0.026)


@pytest.mark.slow
def test_z_is_drawn_from_the_posterior(page, model, synthetic_images):
    before = place(page)
    assert find(page, "#source").text == "z is a draw from the posterior."
    find(page, "#to-sample").click()
    assert not place(page).isclose(before).any()
    z = values(
        page, "{ length: 4000 }, () => Array.from(sampleGaussian(state.posterior, normals()))"
    )
    m, v = model.enc.encode(evaluate.subset_images(synthetic_images)[20])
    assert (z.mean(0) - m).abs().lt(5 * (v / 4000).sqrt()).all()
    torch.testing.assert_close(z.var(0), v, rtol=0.15, atol=0)


@pytest.mark.slow
def test_a_slider_changes_the_picture(page, model, synthetic_images):
    find(page, "#to-origin").click()
    assert place(page).equal(torch.zeros(10))
    before, slider = ink(page, "image"), page.find_elements("css selector", SLIDER)[4]
    furthest = model.enc.encode(evaluate.all_images(synthetic_images))[0].abs().max()
    assert float(slider.get_attribute("max")) >= furthest > 4
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    z = place(page)
    j = int(slider.get_attribute("id")[1:]) - 1
    torch.testing.assert_close(z, torch.eye(10)[j])  # 20 steps of 0.05
    means = 255 * model.compute_sigmoid_given(z)
    assert (ink(page, "image") - means).abs().max() <= 1
    assert not ink(page, "image").equal(before)
    find(page, "#draws").click()
    assert set(ink(page, "image").tolist()) == {0, 255}


@pytest.mark.slow
def test_sliders_are_ordered_by_kl(page, model, synthetic_images):
    kl = posterior_cost(model, evaluate.all_images(synthetic_images)).mean(0)
    labels = [label.text for label in page.find_elements("css selector", ".dimension label")]
    order = kl.argsort(descending=True).tolist()
    assert [label.split() for label in labels] == [[f"z{i + 1}", f"{kl[i]:.2f}"] for i in order]


@pytest.mark.slow
def test_the_map_shows_the_two_principal_components(page, model, synthetic_images):
    m, _ = model.enc.encode(evaluate.all_images(synthetic_images))
    variances = torch.linalg.svdvals(m - m.mean(0)).square() / (len(m) - 1)
    for i in (0, 1):
        direction = values(page, f"directions[{i}]")
        assert direction.norm() == pytest.approx(1, rel=1e-4)
        assert (m @ direction).var() == pytest.approx(variances[i].item(), rel=1e-3)
        share = f"component {i + 1} ({variances[i] / variances.sum():.0%} of variance)"
        assert share in find(page, "#axes").text
    means = model.enc.encode(evaluate.subset_images(synthetic_images))[0]
    expected = page.execute_script("return arguments[0].map(inPlane)", means.tolist())
    points = page.execute_script("return points.slice(0, 100).map(point => Array.from(point))")
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.tensor(points), torch.tensor(expected), **near)
    rows = values(page, "content.rows").long()
    assert rows[:100].equal(subset_rows(synthetic_images.test_labels))
    assert len(rows.unique()) == 999  # the assignment has one twice
    assert rows[100:].diff().max() < 20  # the others are of all parts
    assert rows[100] < 20 and rows[-1] > 9980


@pytest.mark.slow
def test_a_drawing_is_sized_and_centred_as_mnist_does(page):
    pad = find(page, "#pad")
    find(page, "#clear").click()
    # A small cross in the lower right corner.
    for x, y, dx, dy in [(40, 40, 50, 50), (90, 40, -50, 50)]:
        actions = ActionChains(page, duration=0).move_to_element_with_offset(pad, x, y)
        actions.click_and_hold().move_by_offset(dx, dy).release().perform()
    assert all(map(math.isfinite, numbers(page)))
    pixels = values(page, "state.image.pixels").view(28, 28)
    for axis in (0, 1):
        mass = pixels.sum(axis)
        assert (mass * torch.arange(28)).sum() / mass.sum() == pytest.approx(14, abs=0.05)
        assert (mass > 0).sum() in (20, 21, 22)
    assert ink(page, "bits").equal(255 * (pixels >= 0.5).long().flatten())
    find(page, "#clear").click()
    assert not ink(page, "bits").any()


def position(page, script):
    """Where something is on the map, from its middle in CSS pixels."""
    x, y = page.execute_script(f"return ({script}).map(share => share - 0.5)")
    side = find(page, "#here").size["width"]
    return round(x * side), round(y * side)


def lonely(page):
    """The test image whose point is farthest from all others."""
    return page.execute_script(
        """const gaps = points.map(a => Math.min(...points.filter(b => b !== a).map(
               b => Math.hypot(a[0] - b[0], a[1] - b[1]))));
           return gaps.indexOf(Math.max(...gaps))"""
    )


@pytest.mark.slow
def test_a_point_shows_its_image_and_a_click_goes_there(page, model, synthetic_images):
    here, i = find(page, "#here"), lonely(page)
    actions = ActionChains(page, duration=0)
    at = position(page, f"toMap(points[{i}])")
    actions.move_to_element_with_offset(here, *at).perform()
    tip = find(page, "#tip").text
    actions.click().perform()
    row = int(tip.split()[2].strip(","))
    assert tip == f"test image {row}, a {synthetic_images.test_labels[row]}"
    x = evaluate.all_images(synthetic_images)[row]
    if i < 100:
        x = evaluate.subset_images(synthetic_images)[i]
    torch.testing.assert_close(place(page), model.enc.encode(x)[0], rtol=1e-4, atol=1e-5)
    assert position(page, "toMap(inPlane(state.z))") == pytest.approx(at, abs=1)


@pytest.mark.slow
def test_dragging_walks_between_two_images_and_elsewhere_moves_in_the_plane(
    page, model, synthetic_images
):
    x = evaluate.subset_images(synthetic_images)
    for i, end in [(5, "a"), (95, "b")]:
        find(page, f"#gallery label:nth-child({i + 1})").click()
        find(page, f"#take-{end}").click()
    a, b = model.enc.encode(x[[5, 95]])[0]
    find(page, "#share").send_keys(Keys.END)
    torch.testing.assert_close(place(page), b, rtol=1e-4, atol=1e-5)

    here = find(page, "#here")
    start, end = (position(page, f"toMap(inPlane(onWay({share})))") for share in (0.9, 0.5))
    step = [j - i for i, j in zip(start, end, strict=True)]
    actions = ActionChains(page, duration=0).move_to_element_with_offset(here, *start)
    actions.click_and_hold().move_by_offset(*step).release().perform()
    share = float(find(page, "#share").get_attribute("value"))
    assert share == pytest.approx(0.5, abs=0.05)
    exact = ((place(page) - a) @ (b - a)) / (b - a).square().sum()
    torch.testing.assert_close(place(page), torch.lerp(a, b, exact), rtol=1e-4, atol=1e-4)

    before, off = values(page, "inPlane(state.z)"), place(page)
    actions = ActionChains(page, duration=0).move_to_element_with_offset(here, -150, -150)
    actions.click_and_hold().move_by_offset(20, 20).release().perform()
    assert position(page, "toMap(inPlane(state.z))") == pytest.approx((-130, -130), abs=1)
    # What z moves is what it moves in the plane.
    move = values(page, "inPlane(state.z)") - before
    assert (place(page) - off).norm() == pytest.approx(move.norm().item(), rel=1e-3)


@pytest.mark.slow
def test_everything_can_be_reached_and_done_with_the_keyboard(page):
    controls = set()
    for _ in range(60):
        ActionChains(page, duration=0).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        controls.add(focused.get_attribute("id") or focused.get_attribute("name"))
        if focused.get_attribute("id") == "take-b":
            break
    assert controls >= {"clear", "test-image", *(f"z{i}" for i in range(1, 11))}
    assert controls >= {"to-sample", "to-mean", "to-prior", "to-origin"}
    assert controls >= {"means", "here", "share", "take-a", "take-b"}

    find(page, "#gallery :checked").send_keys(Keys.ARROW_RIGHT)
    assert find(page, "#gallery :checked").get_attribute("aria-label").endswith("a 2")
    assert page.execute_script("return state.image.index") == 21

    here, before = find(page, "#here"), position(page, "toMap(inPlane(state.z))")
    here.send_keys(Keys.ARROW_RIGHT + Keys.ARROW_UP)
    side = here.size["width"]
    expected = before[0] + side / 50, before[1] - side / 50
    assert position(page, "toMap(inPlane(state.z))") == pytest.approx(expected, abs=2)
    here.send_keys(Keys.ENTER)
    assert find(page, "#source").text == "z is the posterior mean."


@pytest.mark.slow
def test_text_is_shown_as_it_is(page):
    assert find(page, "#title").text == TITLE
    assert page.title.startswith(TITLE)
    assert "(synthetic)" in find(page, "#encode").text


@pytest.mark.slow
def test_the_policy_lets_nothing_else_run_or_load(page):
    page.execute_script(
        """for (const text of ["window.ran = true", ""]) {
             const script = document.createElement("script");
             if (text) script.textContent = text; else script.src = "https://example.org/a.js";
             document.body.append(script);
           }
           const image = document.createElement("img");
           image.src = "https://example.org/a.png";
           document.body.append(image);"""
    )
    assert page.execute_script("return window.ran") is None
    refusals = [entry["message"] for entry in page.get_log("browser")]
    page.get_log("performance")  # which has the attempts
    assert len(refusals) == 3
    assert all("Content Security Policy" in message for message in refusals)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_fits_its_window(open_page, path, width):
    page = open_page(path, width, 844)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_script("document.querySelector('#share').scrollIntoView({ block: 'end' })")
    picture = page.execute_script("return document.querySelector('#image').getBoundingClientRect()")
    if width != 800:  # in two columns the picture is above the sliders
        assert picture["top"] >= 0
        assert picture["bottom"] <= 844


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts_meet_wcag_aa(open_page, path, scheme):
    page = open_page(path, scheme=scheme)
    texts = page.execute_script(
        """const ground = element => {
             const colour = getComputedStyle(element).backgroundColor;
             return colour === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : colour;
           };
           return [...document.body.querySelectorAll("*")].filter(element =>
             !["SCRIPT", "TEMPLATE", "NOSCRIPT"].includes(element.tagName)
             && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
           ).map(element => [getComputedStyle(element).color, ground(element)])"""
    )
    assert len(texts) > 50
    for colour, ground in set(map(tuple, texts)):
        assert contrast(colour, ground) >= 4.5
    # Points, and the edges of what can be pressed.
    names = ["--accent", "--edge", *(f"--d{digit}" for digit in range(10))]
    grounds = ["--paper", "--ground"]
    colours = page.execute_script(
        """return arguments[0].map(name => {
             document.body.style.color = `var(${name})`;
             return getComputedStyle(document.body).color;
           })""",
        grounds + names,
    )
    for ground in colours[:2]:
        for name, colour in zip(names, colours[2:], strict=True):
            assert contrast(colour, ground) >= 3, name


def contrast(*colours):
    """The contrast ratio of two colours like "rgb(1, 2, 3)", by WCAG 2.2."""

    def luminance(colour):
        shares = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("z_dim", [1, 2, 40])
def test_any_number_of_dimensions_has_a_page(open_page, synthetic_images, tmp_path, z_dim):
    model, path = lively(z_dim), tmp_path / "explorer.html"
    explorer.write(model, synthetic_images, "any", path)
    page = open_page(path)
    assert len(page.find_elements("css selector", SLIDER)) == min(z_dim, 32)
    assert ("8 more dimensions" in find(page, "#latent").text) == (z_dim == 40)
    labels = find(page, "#axes").text
    assert ("principal component 2" in labels) == (z_dim == 40)
    if z_dim == 1:  # a row for each digit
        digits = values(page, "content.digits")
        heights = values(page, "points.map(point => point[1])")
        assert torch.corrcoef(torch.stack([digits, heights]))[0, 1] > 0.95
    i = lonely(page)
    at = position(page, f"toMap(points[{i}])")
    ActionChains(page, duration=0).move_to_element_with_offset(
        find(page, "#here"), *at
    ).click().perform()
    assert page.execute_script("return state.image.index") == i
    before = place(page)
    find(page, "#here").send_keys(Keys.ARROW_RIGHT)
    assert not place(page).equal(before)
    expected = bound(model, values(page, "state.image.x"), place(page))
    assert numbers(page) == pytest.approx(expected, abs=0.011)


class Decoder(nn.Module):
    """A decoder around any layers."""

    def __init__(self, *layers):
        super().__init__()
        self.any_name = nn.Sequential(*layers)

    def decode(self, z):
        return self.any_name(z)


class Skipping(Decoder):
    """Adds something to its layers."""

    def decode(self, z):
        return super().decode(z) + z.sum(-1, keepdim=True)


class Squaring(Decoder):
    """Feeds its layers with something else than z."""

    def decode(self, z):
        return super().decode(torch.cat([z, z.square()], -1))


@pytest.mark.slow
def test_other_sequences_of_linear_layers_and_elu_have_a_page(
    open_page, synthetic_images, tmp_path
):
    model, path = lively(2), tmp_path / "explorer.html"
    model.dec = Decoder(nn.Linear(2, 50), nn.ELU(0.3), nn.Linear(50, 784, bias=False))
    explorer.write(model, synthetic_images, "other", path)
    logits = open_page(path).execute_script("return Array.from(decode([1, -2]))")
    expected = model.dec.decode(torch.tensor([1.0, -2.0])).tolist()
    assert logits == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "decoder",
    [
        Decoder(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 784)),
        Skipping(nn.Linear(2, 784)),
        Squaring(nn.Linear(4, 784)),
    ],
)
def test_networks_that_the_page_cannot_compute_are_refused(synthetic_images, tmp_path, decoder):
    model = VAE(z_dim=2)
    model.dec = decoder
    with pytest.raises(ExplorerError, match="linear layers and ELU"):
        explorer.write(model, synthetic_images, "none", tmp_path / "explorer.html")
    assert list(tmp_path.iterdir()) == []


def test_a_model_too_large_for_a_page_is_refused(synthetic_images, tmp_path):
    with pytest.raises(ExplorerError, match=r"the model has 9,\d{3},\d{3} parameters, and x"):
        explorer.write(VAE(z_dim=10_000), synthetic_images, "large", tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_ten_dimensions_is_at_most_five_megabytes(path):
    assert path.stat().st_size <= 5_000_000
