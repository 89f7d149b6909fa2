"""The explorer page in a real browser: keyboard, sizes, colours, and numbers of dimensions."""

import math

import pytest
import torch
from browsing import change, contrast, find, mouse, numbers, press, source, values, z_of
from conftest import wait_for
from drawn import random_model
from selenium.webdriver import Keys
from torch.distributions import Bernoulli

from codebase.pictures import explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]


def test_every_control_works_with_the_keyboard(page):
    controls = set()
    for _ in range(60):
        mouse(page).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        controls.add(focused.get_attribute("id") or focused.get_attribute("name"))
        if focused.get_attribute("id") == "take-b":
            break
    assert controls >= {"clear", "test-image", *(f"z{i}" for i in range(1, 11))}
    assert controls >= {"to-sample", "to-mean", "to-prior", "to-origin"}
    assert controls >= {"means", "cross", "share", "take-a", "take-b"}

    find(page, "#gallery :checked").send_keys(Keys.ARROW_RIGHT)
    assert find(page, "#gallery :checked").accessible_name.endswith("labelled 2")
    assert page.execute_script("return state.image.index") == 21
    find(page, "#to-prior").send_keys(Keys.ENTER)
    assert source(page) == "a sample from the prior"
    find(page, "#means").send_keys(Keys.ARROW_RIGHT)
    assert find(page, "#samples").is_selected()


def test_the_title_is_text_and_not_html(page, title):
    assert find(page, "#title").text == title
    assert page.title.startswith(title)
    assert "(numbered)" in find(page, "#encode").text


def test_the_page_fits_its_window_also_after_a_change(page):
    for width, columns in (390, 1), (800, 2), (1280, 4), (1920, 4), (800, 2), (390, 1):
        change(page, width, 844, "light")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        boxes = page.execute_script(
            """return ["encode", "latent", "image", "map"].map(
                 id => document.getElementById(id).getBoundingClientRect().left)"""
        )
        if columns != 2:
            assert len({round(left / width * 10) for left in boxes}) == columns
        page.execute_script("document.querySelector('#share').scrollIntoView({ block: 'end' })")
        picture = page.execute_script("return element('image').getBoundingClientRect()")
        if columns != 2:  # With two columns, the picture is above the sliders.
            assert picture["top"] >= 0 and picture["bottom"] <= 844


def test_the_page_needs_no_scrolling_on_a_laptop(open_page, path):
    page = open_page(path, 1440, 760)  # a screen of 1440 x 900 without the browser's bars
    assert page.execute_script("return document.documentElement.scrollHeight") <= 760


def test_the_address_carries_z(open_page, path):
    page = open_page(path)
    press(page, "to-prior")
    z = z_of(page)
    wait_for(lambda: page.current_url.endswith(f"#z={','.join(f'{float(x):.3f}' for x in z)}"))
    page.refresh()
    torch.testing.assert_close(z_of(page), z, rtol=0, atol=0.0006)
    page.execute_script(f"location.hash = 'z={','.join(10 * ['-1.5'])}'")
    wait_for(lambda: z_of(page).equal(torch.full((10,), -1.5)))
    page.execute_script("location.hash = 'z=1,2'")  # This address is of a model with z = 2.
    page.refresh()
    assert source(page) == "a sample from the posterior"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts_meet_wcag_aa(page, scheme):
    change(page, 1280, 900, scheme)
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
    # The edges of points and controls need a lower contrast than text.
    names = ["--accent", "--edge"]
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
def test_any_number_of_dimensions_works(open_page, images, tmp_path, z_dim):
    model, path = random_model(z_dim), tmp_path / "explorer.html"
    explorer.write(model, images, "any", path)
    page = open_page(path)
    count = len(page.find_elements("css selector", '#dimensions input[type="range"]'))
    assert count == min(z_dim, 32)
    assert find(page, "#left-out").is_displayed() == (z_dim == 40)
    assert ("8 more" in find(page, "#latent").text) == (z_dim == 40)
    assert ("principal component 2" in find(page, "#axes").text) == (z_dim == 40)
    before = z_of(page)
    find(page, "#cross").send_keys(Keys.ARROW_RIGHT)
    assert not z_of(page).equal(before)
    find(page, "#cross").send_keys(Keys.ENTER)
    x, z = values(page, "state.image.x"), z_of(page)
    torch.testing.assert_close(z, model.enc.encode(x)[0], rtol=1e-4, atol=1e-5)
    _, rec, total = numbers(page)
    expected = -Bernoulli(logits=model.dec.decode(z)).log_prob(x).sum().item()
    assert rec == pytest.approx(expected, abs=0.011)
    assert math.isfinite(total)
