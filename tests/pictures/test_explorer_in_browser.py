"""What the page to walk through the latent space does in a real browser."""

import math

import pytest
import torch
from browsing import contrast, emulate, find, ink, mouse, open_browser, requested, values
from conftest import wait_for
from drawn import lively, numbered_images
from selenium.webdriver import Keys
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.data import subset_rows
from codebase.evaluate import all_images, subset_images
from codebase.pictures import explorer

pytestmark = pytest.mark.slow

TITLE = "model=vae_z=10_lr=0.002_lr_schedule=linear</script><script>alert('&amp;')</script>"
SLIDER = '#dimensions input[type="range"]'


@pytest.fixture(scope="module")
def images():
    return numbered_images()


@pytest.fixture(scope="module")
def model():
    return lively(10)


@pytest.fixture(scope="module")
def path(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.write(model, images, TITLE, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.quit()


@pytest.fixture
def open_page(browser):
    """Open a page, and find at the end that it said nothing and asked no network for anything."""
    opened = []

    def open_page(path, width=1280, height=900, scheme="light"):
        emulate(browser, width, height, scheme)
        browser.get(path.as_uri())
        opened.append(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    assert requested(browser) <= set(opened)


@pytest.fixture
def page(open_page, path):
    return open_page(path)


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


def test_the_page_computes_what_pytorch_computes(page, model, images):
    x, z = subset_images(images)[::5], torch.randn(20, 10)
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


def test_a_chosen_image_is_encoded_and_its_bound_shown(page, model, images):
    i = 37
    find(page, "#to-origin").click()
    find(page, f"#gallery label:nth-child({i + 1})").click()
    x = subset_images(images)[i]
    row = subset_rows(images.test_labels)[i]
    assert ink(page, "bits").equal((255 * x).long())
    assert find(page, "#source").text == "z is a draw from the posterior."
    assert f"test image {row}, a 3" in find(page, "#explanation").text
    z = place(page)
    assert numbers(page) == pytest.approx(bound(model, x, z), abs=0.011)
    m, v = model.enc.encode(x)
    costs, reach = posterior_cost(model, x), page.execute_script("return content.reach")
    for slider in page.find_elements("css selector", SLIDER):
        j = int(slider.get_attribute("id")[1:]) - 1
        mean, deviation = slider.get_attribute("title").replace("\u2212", "-").split(", ")
        assert float(mean.removeprefix("posterior mean ")) == pytest.approx(m[j].item(), abs=0.006)
        expected = pytest.approx(v[j].sqrt().item(), abs=0.006)
        assert float(deviation.removeprefix("standard deviation ")) == expected
        shown = slider.find_element("xpath", "../following-sibling::*[2]").text
        assert float(shown) == pytest.approx(costs[j].item(), abs=0.006)
        nearest = z[j].clamp(-reach, reach).item()  # a draw can be beyond the slider's end
        assert float(slider.get_attribute("value")) == pytest.approx(nearest, abs=0.026)
        bell = slider.find_element("xpath", "..//*[@class='posterior']").get_attribute("d")
        points = torch.tensor([[*map(float, pair.split(","))] for pair in bell[1:-1].split("L")])
        density = Normal(m[j], v[j].sqrt()).log_prob(points[:, 0]).exp()
        height = 1 - density * (2 * math.pi * v[j]).sqrt()  # from the peak downwards
        torch.testing.assert_close(points[:, 1], height, rtol=1e-3, atol=1e-3)


def test_z_is_drawn_from_the_posterior(page, model, images):
    before = place(page)
    assert find(page, "#source").text == "z is a draw from the posterior."
    find(page, "#to-sample").click()
    assert (place(page) != before).all()
    z = values(
        page, "{ length: 4000 }, () => Array.from(sampleGaussian(state.posterior, normals()))"
    )
    m, v = model.enc.encode(subset_images(images)[20])
    assert (z.mean(0) - m).abs().lt(5 * (v / 4000).sqrt()).all()
    torch.testing.assert_close(z.var(0), v, rtol=0.15, atol=0)


def test_a_slider_changes_the_picture(page, model, images):
    find(page, "#to-origin").click()
    assert place(page).equal(torch.zeros(10))
    before, slider = ink(page, "image"), page.find_elements("css selector", SLIDER)[4]
    furthest = model.enc.encode(all_images(images))[0].abs().max()
    assert float(slider.get_attribute("max")) >= furthest > 4
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    z = place(page)
    j = int(slider.get_attribute("id")[1:]) - 1
    torch.testing.assert_close(z, torch.eye(10)[j])  # 20 steps of 0.05
    means = 255 * model.compute_sigmoid_given(z)
    assert (ink(page, "image") - means).abs().max() <= 1
    assert not ink(page, "image").equal(before)
    find(page, "#draws").click()
    drawn = ink(page, "image")
    assert set(drawn.tolist()) == {0, 255}
    assert means[drawn == 255].mean() > means[drawn == 0].mean()  # the likelier ones are drawn


def test_sliders_are_ordered_by_kl(page, model, images):
    kl = posterior_cost(model, all_images(images)).mean(0)
    labels = page.find_elements("css selector", ".dimension label")
    names, shown = zip(*(label.text.split() for label in labels), strict=True)
    order = kl.argsort(descending=True)
    assert list(names) == [f"z{i + 1}" for i in order]
    assert list(map(float, shown)) == pytest.approx(kl[order].tolist(), abs=0.006)


def test_the_map_shows_posterior_means_in_its_plane(page, model, images):
    labels = page.execute_script("return content.plane.labels")
    assert find(page, "#axes").text == f"Across: {labels[0]}. Up: {labels[1]}."
    assert all("principal component" in label for label in labels)
    means = model.enc.encode(subset_images(images))[0]
    expected = page.execute_script("return arguments[0].map(inPlane)", means.tolist())
    points = page.execute_script("return points.slice(0, 100).map(point => Array.from(point))")
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.tensor(points), torch.tensor(expected), **near)


def test_a_drawing_is_sized_and_centred_as_mnist_does(page):
    pad = find(page, "#pad")
    find(page, "#clear").click()
    # A small cross in the lower right corner.
    for x, y, dx, dy in [(40, 40, 50, 50), (90, 40, -50, 50)]:
        actions = mouse(page).move_to_element_with_offset(pad, x, y)
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


def test_a_point_shows_its_image_and_a_click_goes_there(page, model, images):
    here, i, actions = find(page, "#here"), lonely(page), mouse(page)
    at = position(page, f"toMap(points[{i}])")
    actions.move_to_element_with_offset(here, *at).perform()
    tip = find(page, "#tip").text
    actions.click().perform()
    row = int(tip.split()[2].strip(","))
    assert tip == f"test image {row}, a {images.test_labels[row]}"
    x = subset_images(images)[i] if i < 100 else all_images(images)[row]
    torch.testing.assert_close(place(page), model.enc.encode(x)[0], rtol=1e-4, atol=1e-5)
    assert position(page, "toMap(inPlane(state.z))") == pytest.approx(at, abs=1)


def test_dragging_walks_between_two_images_and_elsewhere_moves_in_the_plane(page, model, images):
    x = subset_images(images)
    for i, end in [(5, "a"), (95, "b")]:
        find(page, f"#gallery label:nth-child({i + 1})").click()
        find(page, f"#take-{end}").click()
    a, b = model.enc.encode(x[[5, 95]])[0]
    find(page, "#share").send_keys(Keys.END)
    torch.testing.assert_close(place(page), b, rtol=1e-4, atol=1e-5)

    here = find(page, "#here")
    start, end = (position(page, f"toMap(inPlane(onWay({share})))") for share in (0.9, 0.5))
    step = [j - i for i, j in zip(start, end, strict=True)]
    actions = mouse(page).move_to_element_with_offset(here, *start)
    actions.click_and_hold().move_by_offset(*step).release().perform()
    share = float(find(page, "#share").get_attribute("value"))
    assert share == pytest.approx(0.5, abs=0.05)
    exact = ((place(page) - a) @ (b - a)) / (b - a).square().sum()
    torch.testing.assert_close(place(page), torch.lerp(a, b, exact), rtol=1e-4, atol=1e-4)

    before, off = values(page, "inPlane(state.z)"), place(page)
    actions = mouse(page).move_to_element_with_offset(here, -150, -150)
    actions.click_and_hold().move_by_offset(20, 20).release().perform()
    assert position(page, "toMap(inPlane(state.z))") == pytest.approx((-130, -130), abs=1)
    # What z moves is what it moves in the plane.
    move = values(page, "inPlane(state.z)") - before
    assert (place(page) - off).norm() == pytest.approx(move.norm().item(), rel=1e-3)


def test_everything_can_be_reached_and_done_with_the_keyboard(page):
    controls = set()
    for _ in range(60):
        mouse(page).send_keys(Keys.TAB).perform()
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


def test_where_z_is_and_the_bound_are_told_to_who_cannot_see_them(page):
    find(page, "#to-origin").click()
    words = " ".join(f"{name} {find(page, f'#{name}').text}," for name in ("KL", "REC", "NELBO"))
    status = find(page, "#status")
    wait_for(lambda: "origin" in status.get_attribute("textContent"))
    assert status.get_attribute("textContent") == f"z is the origin. {words[:-1]} nats."
    assert status.get_attribute("role") == "status"


def test_text_is_shown_as_it_is(page):
    assert find(page, "#title").text == TITLE
    assert page.title.startswith(TITLE)
    assert "(numbered)" in find(page, "#encode").text


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
    refusals = []

    def all_are_refused():
        refusals.extend(entry["message"] for entry in page.get_log("browser"))
        return len(refusals) >= 3

    wait_for(all_are_refused)
    requested(page)  # which the attempts are among
    assert page.execute_script("return window.ran") is None
    assert len(refusals) == 3
    assert all("Content Security Policy" in message for message in refusals)


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_fits_its_window(open_page, path, width):
    page = open_page(path, width, 844)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_script("document.querySelector('#share').scrollIntoView({ block: 'end' })")
    picture = page.execute_script("return document.querySelector('#image').getBoundingClientRect()")
    if width != 800:  # in two columns the picture is above the sliders
        assert picture["top"] >= 0 and picture["bottom"] <= 844


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


@pytest.mark.parametrize("z_dim", [1, 2, 40])
def test_any_number_of_dimensions_has_a_page(open_page, images, tmp_path, z_dim):
    model, path = lively(z_dim), tmp_path / "explorer.html"
    explorer.write(model, images, "any", path)
    page = open_page(path)
    assert len(page.find_elements("css selector", SLIDER)) == min(z_dim, 32)
    assert ("8 more dimensions" in find(page, "#latent").text) == (z_dim == 40)
    labels = find(page, "#axes").text
    assert ("principal component 2" in labels) == (z_dim == 40)
    i = lonely(page)
    at = position(page, f"toMap(points[{i}])")
    mouse(page).move_to_element_with_offset(find(page, "#here"), *at).click().perform()
    assert page.execute_script("return state.image.index") == i
    before = place(page)
    find(page, "#here").send_keys(Keys.ARROW_RIGHT)
    assert not place(page).equal(before)
    expected = bound(model, values(page, "state.image.x"), place(page))
    assert numbers(page) == pytest.approx(expected, abs=0.011)


def test_other_sequences_of_linear_layers_and_elu_have_a_page(open_page, images, tmp_path):
    path, model = tmp_path / "explorer.html", lively(2)
    model.dec.net = nn.Sequential(nn.Linear(2, 50), nn.ELU(0.3), nn.Linear(50, 784, bias=False))
    explorer.write(model, images, "other", path)
    logits = open_page(path).execute_script("return Array.from(decode([1, -2]))")
    expected = model.dec.decode(torch.tensor([1.0, -2.0])).tolist()
    assert logits == pytest.approx(expected, rel=1e-4, abs=1e-5)
