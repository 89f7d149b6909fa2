"""The explorer page in a real browser: its mathematics against PyTorch, and a walk through it."""

import math
import re
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from browsing import find, mouse, open_browser, pixels, press, values
from conftest import wait_for
from drawn import decoded, other_layers, random_model
from matplotlib.colors import to_rgb
from selenium.webdriver import Keys
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.pictures import drawing, explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["drawn"]

TITLE = "z = 10, run 0</script><script>alert('&amp;')</script>"


@pytest.fixture(scope="module")
def open_page(tmp_path_factory, images):
    """Open the page of a model, which is written once; check that no page has logged an error."""
    folder = tmp_path_factory.mktemp("explorer")

    def open_page(model, images=images):
        path = folder / f"{model.z_dim}.html"
        if not path.exists():
            explorer.write(model, images, TITLE, path)
        browser.get(path.as_uri())
        return browser

    with open_browser(folder / "profile") as browser:
        yield open_page
        assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def model():
    return random_model(10)


@pytest.fixture
def page(open_page, model):
    return open_page(model)


def test_the_page_computes_what_pytorch_computes(open_page, images):
    model = other_layers()
    for layer in (*model.enc.net[::2], *model.dec.net):
        # The page holds weights of 16 bits, so that it computes with exactly these.
        step = layer.weight.abs().max() / (2**15 - 1)
        layer.weight.copy_((layer.weight / step).round() * step)
    page, exact = open_page(model), deepcopy(model).double()
    x = torch.cat([images.subset_bits[::12], torch.zeros(4, 784), torch.ones(4, 784)]).double()
    z = torch.randn(len(x), 3).double() * torch.tensor([1, 5, 1000]).repeat(6)[: len(x), None]
    script = """return arguments[0].map((x, i) => {
        const z = Float64Array.from(arguments[1][i]), { m, v } = encode(x), logits = decode(z);
        const parts = [m, v, logits, kl({ m, v }, prior), [rec(x, logits)], logits.map(sigmoid)];
        return parts.map(part => Array.from(part));
    })"""
    results = page.execute_script(script, x.tolist(), z.tolist())
    parts = (torch.tensor(part, dtype=torch.float64) for part in zip(*results, strict=True))
    m, v, logits, kl, rec, means = parts
    assert logits.abs().max() > 1000  # where exp overflows
    q, p = (Normal(mean, variance.sqrt()) for mean, variance in ((m, v), exact.z_prior))
    near = {"rtol": 1e-7, "atol": 1e-9}  # PyTorch's softplus has an error of 2e-9 at 20.
    torch.testing.assert_close((m, v), exact.enc.encode(x), **near)
    torch.testing.assert_close(logits, exact.dec.decode(z), **near)
    torch.testing.assert_close(means, logits.sigmoid(), rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(kl, kl_divergence(q, p), **near)
    expected = -Bernoulli(logits=logits).log_prob(x).sum(1, keepdim=True)
    torch.testing.assert_close(rec, expected, rtol=1e-9, atol=0)
    # Its noise has the first four moments of N(0, 1), within five standard errors.
    noise = values(page, "Array.from({ length: 40000 }, normal)")
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(noise.pow(power).mean() - moment) < 5 * math.sqrt(variance / 40_000)


def image(i):
    """The selector of the i-th test image of the gallery."""
    return f"#gallery label:nth-child({i + 1})"


def z_of(page):
    return values(page, "state.z")


def index_of(page):
    """The number of the image that is encoded, None for a digit that was written."""
    return page.execute_script("return state.image.index")


def source(page):
    """The text that names the source of z."""
    return find(page, "#source").text


def ink(page, selector):
    """The values of a canvas in one row, from 0 to 1."""
    return pixels(page, selector)[..., 3].flatten()


def numbers_in(text):
    """All numbers in a text of the page."""
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text.replace("\u2212", "-"))]


def close(text, *expected, within=0.006):
    """Whether the numbers in a text, with two decimals, are the expected ones."""
    return numbers_in(text) == pytest.approx([float(number) for number in expected], abs=within)


def kl_of(model, x):
    """The KL of each dimension for x (..., 784)."""
    (m, v), (prior_m, prior_v) = model.enc.encode(x), model.z_prior
    return kl_divergence(Normal(m, v.sqrt()), Normal(prior_m, prior_v.sqrt()))


def noise_of(page, model, x):
    """The noise of the z that the page shows, if it is a sample from the posterior of x."""
    m, v = model.enc.encode(x)
    return (z_of(page) - m) / v.sqrt()


def assert_shown(page, model, x):
    """Check the numbers and the picture that the page shows for x (784,) at its z."""
    z, kl = z_of(page), kl_of(model, x).sum()
    rec = -Bernoulli(logits=model.dec.decode(z)).log_prob(x).sum()
    shown = " ".join(find(page, f"#{name}").text for name in ("KL", "REC", "sum"))
    assert close(shown, kl, rec, kl + rec, within=0.011)
    assert (ink(page, "#image") - model.compute_sigmoid_given(z)).abs().max() < 0.01


def test_a_chosen_image_is_encoded_and_buttons_move_z(page, model, images):
    press(page, image(37))
    row = images.subset_indices[37]
    torch.testing.assert_close(ink(page, f"{image(37)} canvas"), images.test[row] / 255)
    pad = pixels(page, "#pad")[5::10, 5::10, 3]  # the middle of each pixel
    assert (pad.flatten() - images.test[row] / 255).abs().max() < 0.01
    assert numbers_in(find(page, "#explanation").text) == [row, images.test_labels[row]]
    noise = noise_of(page, model, images.subset_bits[37])
    assert (noise - values(page, "state.noise")).abs().max() < 0.01
    find(page, "#gallery :checked").send_keys(Keys.ARROW_LEFT)
    x = images.subset_bits[36]
    assert index_of(page) == 36 and ink(page, "#bits").equal(x)
    assert ((noise_of(page, model, x) - noise).abs() > 1e-3).all()  # Each image gets new noise.
    words = {"to-sample": "posterior", "to-prior": "prior", "to-mean": "mean"}
    for button, word in (words | {"to-origin": "origin"}).items():
        before = z_of(page)
        find(page, f"#{button}").send_keys(Keys.ENTER)
        assert word in source(page) and not z_of(page).equal(before)
        # Only a sample from the posterior gives an estimate of the NELBO.
        assert (find(page, "#sum-name").text == "NELBO") == (button == "to-sample")
        assert_shown(page, model, x)
    assert (before - model.enc.encode(x)[0]).abs().max() < 1e-4  # the posterior mean
    assert z_of(page).equal(torch.zeros(10))
    press(page, "#samples")
    sampled, means = ink(page, "#image"), model.compute_sigmoid_given(torch.zeros(10))
    assert sampled.unique().tolist() == [0, 1]
    assert (sampled - means).sum().abs() < 5 * (means * (1 - means)).sum().sqrt()
    press(page, "#means", "#prior-samples button:nth-child(10)")
    assert "prior" in source(page)
    assert z_of(page).abs().max() < 5 < model.enc.encode(x)[0].abs().max()  # not the posterior's
    assert ink(page, "#prior-samples button:nth-child(10) canvas").equal(ink(page, "#image"))
    assert_shown(page, model, x)


def test_z_is_in_the_address_and_is_spoken_once_it_rests(page):
    script, z = "element('to-prior').click(); return element('status').textContent", z_of(page)
    assert "prior" not in page.execute_script(script)
    status = page.find_element("css selector", "#status")
    wait_for(lambda: "prior" in status.get_property("textContent"), minutes=1)
    said, z = status.get_property("textContent"), z_of(page)
    assert all(find(page, f"#{name}").text in said for name in ("KL", "REC", "sum", "source"))
    assert page.current_url.endswith(",".join(f"{float(x):.3f}" for x in z))
    page.refresh()
    torch.testing.assert_close(z_of(page), z, rtol=0, atol=0.0006)
    page.execute_script(f"location.hash = 'z={','.join(10 * ['-1.5'])}'")
    wait_for(lambda: z_of(page).equal(torch.full((10,), -1.5)), minutes=1)
    page.execute_script("location.hash = 'z=1,2'")  # This address is of a model with z = 2.
    page.refresh()
    assert "posterior" in source(page)


def test_each_slider_shows_and_moves_one_dimension(open_page, images):
    model = other_layers()
    page = open_page(model)
    press(page, image(37))
    x, z = images.subset_bits[37], z_of(page)
    (m, v), kl = model.enc.encode(x), kl_of(model, x)
    mean_kl = kl_of(model, images.test_bits).mean(0)
    limit = page.execute_script("return content.limit")
    parts = ("label", "input", ".number", ".number span")
    rows = page.find_elements("css selector", "#dimensions > div")
    for i, row in zip(mean_kl.argsort(descending=True).tolist(), rows, strict=True):
        label, slider, value, cost = (row.find_element("css selector", part) for part in parts)
        assert close(label.text, i + 1, mean_kl[i])
        assert close(value.text, z[i]) and close(cost.text, kl[i])
        assert close(slider.get_attribute("aria-valuetext"), z[i], m[i], v[i].sqrt())
        before = z_of(page)
        slider.send_keys(Keys.END + Keys.ARROW_LEFT * (i + 1))
        before[i] = limit - 0.05 * (i + 1)
        torch.testing.assert_close(z_of(page), before)
    assert "hand" in source(page)
    assert_shown(page, model, x)


def test_a_written_digit_is_normalized_and_encoded_with_the_same_noise(page, model, images):
    press(page, image(3))
    noise = noise_of(page, model, images.subset_bits[3])
    for stroke in ([(0.7, 0.5), (0.9, 0.5)], [(0.8, 0.5), (0.8, 0.9)]):  # They make a T.
        mouse(page, "#pad", *stroke)
    mouse(page, "#pad", (0.1, 0.1), pressed=False)
    pad = pixels(page, "#pad")[..., 3]
    assert pad[140, 220] == pad[200, 224] == 1 and not pad[:100].any()
    shown, x = values(page, "state.image.pixels").view(28, 28), ink(page, "#bits")
    assert x.equal((shown >= 0.5).float().flatten())
    # As in MNIST, a digit is 20 pixels long, has its mass at (14, 14), and a pen of 2.6 pixels.
    lengths = [(x.view(28, 28).amax(axis) > 0).sum().item() for axis in (0, 1)]
    assert max(lengths) in (19, 20, 21) and min(lengths) < 14
    mass = torch.stack([shown.sum(axis) @ torch.arange(28.0) for axis in (0, 1)]) / shown.sum()
    assert (mass - 14).abs().max() < 0.1
    assert shown[18].sum() == pytest.approx(2.6, abs=0.1)
    torch.testing.assert_close(noise_of(page, model, x), noise, rtol=1e-3, atol=1e-3)
    assert_shown(page, model, x)
    assert not find(page, "#hint").is_displayed()
    assert index_of(page) is None and not page.find_elements("css selector", "#gallery :checked")
    # A dot stays small.
    assert 0 < values(page, "handwrittenImage([[[6, 6], [7, 6]]]).x").sum() < 30
    press(page, "#clear")
    assert not ink(page, "#pad").any() and find(page, "#hint").is_displayed()


def places_on_map(page):
    """The places of the points on the map, as shares of its width and height."""
    return torch.tensor(page.execute_script("return points.map(toMap)"))


def test_the_map_shows_points_and_a_click_chooses_one(page, model, images):
    places = places_on_map(page)
    labels, rows = page.execute_script("return [content.labels, content.indices]")
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    i = distances.amin(1).argmax().item()  # the point that is farthest from its neighbour
    picture = pixels(page, "#points")
    column, row = (places[i] * len(picture)).int()
    colour = pytest.approx(to_rgb(drawing.COLOURS[labels[i]]), abs=0.02)
    assert picture[row, column, :3].tolist() == colour
    mouse(page, "#cross", places[i], pressed=False)
    assert numbers_in(find(page, "#tip").text) == [rows[i], labels[i]]
    torch.testing.assert_close(ink(page, "#tip canvas"), images.test[rows[i]] / 255)
    mouse(page, "#cross", places[i], places[i] + 0.004)  # The hand may tremble.
    assert index_of(page) == i and "mean" in source(page)
    m, _ = model.enc.encode(values(page, "state.image.x"))
    assert (z_of(page) - m).abs().max() < 1e-3


def test_mouse_and_keys_move_z_parallel_to_the_plane(page, model):
    plane, half = page.execute_script("return [content.plane, half]")
    points = decoded(plane["points"]).view(-1, 2)
    origin, directions = decoded(plane["origin"]), torch.stack([*map(decoded, plane["directions"])])
    before, index, cross = z_of(page), index_of(page), find(page, "#cross")

    def assert_moved(to):
        moved = z_of(page) - before
        assert (moved - moved @ directions.T @ directions).abs().max() < 1e-4
        assert ((z_of(page) - origin) @ directions.T - to).abs().max() < 0.02 * half
        assert "hand" in source(page) and index_of(page) == index

    mouse(page, "#cross", (0.02, 0.02), pressed=False)  # There is no point in this corner.
    preview = ink(page, "#tip canvas")
    assert "decoded" in find(page, "#tip").text and z_of(page).equal(before)
    mouse(page, "#cross", (0.02, 0.02))
    assert (preview - model.compute_sigmoid_given(z_of(page))).abs().max() < 0.02
    # The end of a drag is no click, not even on a point.
    mouse(page, "#cross", (0.02, 0.02), places_on_map(page)[0])
    assert_moved(points[0])
    cross.send_keys(Keys.ARROW_RIGHT * 7 + Keys.ARROW_UP * 9 + Keys.ARROW_LEFT + Keys.ARROW_DOWN)
    place = points[0] + torch.tensor([6, 8]) / 25 * half
    assert_moved(place)
    cross.send_keys(Keys.ENTER)
    assert index_of(page) == (points - place).norm(dim=1).argmin()
    cross.send_keys(Keys.CONTROL + Keys.ARROW_LEFT)  # Commands are left to the browser.
    assert "mean" in source(page)
    cross.send_keys(Keys.TAB)
    assert page.switch_to.active_element != cross


def test_the_line_from_a_to_b_interpolates(page, model, images):
    places = places_on_map(page)[:100]
    ends = divmod(torch.cdist(places, places).argmax().item(), 100)  # the longest line
    for i, end in zip(ends, "ab", strict=True):
        press(page, image(i), f"#take-{end}")
        row = images.subset_indices[i]
        torch.testing.assert_close(ink(page, f"#{end}"), images.test[row] / 255)
        name = find(page, f"#{end}").get_attribute("ariaLabel")
        assert f" {end.upper()}:" in name and numbers_in(name) == [row, images.test_labels[row]]
    a, b = model.enc.encode(images.subset_bits[[*ends]])[0]

    def assert_between(share, within=1e-4):
        found = (((z_of(page) - a) @ (b - a)) / (b - a).square().sum()).item()
        assert found == pytest.approx(share, abs=within)
        assert (z_of(page) - torch.lerp(a, b, found)).abs().max() < 1e-3
        assert numbers_in(source(page)) == [round(100 * found)]

    slider = find(page, "#share")
    for key, share in ((Keys.END, 1), (Keys.HOME + Keys.ARROW_RIGHT * 30, 0.3)):
        slider.send_keys(key)
        assert_between(share)
    mouse(page, "#cross", *(torch.lerp(*places[[*ends]], share) for share in (0.7, 0.2)))
    assert_between(0.2, within=0.02)
    assert float(slider.get_attribute("value")) == pytest.approx(0.2, abs=0.02)
    page.execute_script("interpolate(0.9)")
    press(page, "#play")
    wait_for(lambda: find(page, "#play").text == "Play", minutes=1)  # until then it is "Pause"
    assert_between(1)
    script = "const frames = []; requestAnimationFrame = f => frames.push(f); play(); frames[0](0)"
    page.execute_script(script)  # the first picture of another walk, which begins at A
    assert_between(0)
    press(page, "#to-origin")  # Anything that moves z ends the walk.
    assert find(page, "#play").text == "Play"


def test_the_page_fits_a_phone_at_night_and_names_its_controls(page):
    assert find(page, "#title").text == TITLE and page.title.startswith(TITLE)
    for element in page.find_elements("css selector", "button, input, [role='img'], [tabindex]"):
        assert element.accessible_name, element.get_attribute("id")
    phone = {"width": 390, "height": 900, "deviceScaleFactor": 2, "mobile": True}
    night = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", night)
    script = "return element('cross').width === 2 * element('cross').clientWidth"
    wait_for(lambda: page.execute_script(script), minutes=1)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    # Images are black on a transparent ground, so they are inverted in the dark.
    assert find(page, "#pad").value_of_css_property("filter") == "invert(1)"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize(("z_dim", "labels"), [(1, []), (2, [*range(1, 27)]), (40, [*range(10)])])
def test_any_number_of_dimensions_and_labels_is_shown(open_page, images, z_dim, labels):
    model = random_model(z_dim)
    test_labels = torch.tensor(labels).repeat(1000)[: len(images.test)]
    page = open_page(model, replace(images, test_labels=test_labels))
    assert len(page.find_elements("css selector", "#dimensions input")) == min(z_dim, 32)
    for selector, word in (("#latent", "8 more"), ("#axes", "component 2")):
        assert (word in find(page, selector).text) == (z_dim == 40)
    assert numbers_in(find(page, "#legend").text) == labels
    assert ("label" in find(page, "#explanation").text) == bool(labels)
    before = z_of(page)
    find(page, "#cross").send_keys(Keys.ARROW_RIGHT)
    assert not z_of(page).equal(before)
    find(page, "#cross").send_keys(Keys.ENTER)
    assert_shown(page, model, values(page, "state.image.x"))
