"""Gallery, sliders, buttons and bounds of the explorer's page, and what is said of them."""

import math
from types import SimpleNamespace

import pytest
import torch
from browsing import bound, choose, find, ink, place, press, source
from conftest import wait_for
from drawn import lively
from selenium.webdriver import Keys
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.data import subset_rows
from codebase.evaluate import all_images, subset_images
from codebase.pictures import explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]


def cost(model, x):
    """KL of each dimension for x (..., 784)."""
    m, v = model.enc.encode(x)
    return kl_divergence(Normal(m, v.sqrt()), Normal(0, 1))


def bound_of(model, x, z):
    """KL, REC and NELBO of x (784,) at z, by another way than the model's."""
    kl = cost(model, x).sum().item()
    rec = -Bernoulli(logits=model.dec.decode(z)).log_prob(x).sum().item()
    return kl, rec, kl + rec


def sliders(page):
    """What the row of each slider shows and says, of dimension i, counted from 0."""
    rows = page.execute_script(
        """return [...document.querySelectorAll("#dimensions > div")].map(row => {
             const find = selector => row.querySelector(selector), input = find("input");
             const { value, min, max, title, ariaLabel, ariaValueText } = input;
             const [z, cost] = [...row.querySelectorAll(".number")].map(e => e.innerText.trim());
             const [track, bar] = [".cost", ".cost div"].map(s => find(s).clientWidth);
             const label = find("label");
             return {
               i: Number(input.id.slice(1)) - 1,
               name: label.innerText, labelled: label.control === input,
               value, min, max, title, ariaLabel, ariaValueText, z, cost, bar: bar / track,
               input, prior: find(".prior"), posterior: find(".posterior"),
             };
           })"""
    )
    return [SimpleNamespace(**row) for row in rows]


def shown(text):
    """A number as the page writes it."""
    whole, decimals = text.replace("\u2212", "-").split(".")
    assert len(decimals) == 2
    return float(f"{whole}.{decimals}")


def test_a_chosen_image_is_encoded_and_its_bound_shown(page, model, images):
    rows = subset_rows(images.test_labels)
    for i in (37, 99):
        press(page, "to-origin")
        choose(page, i)
        x = subset_images(images)[i]
        assert ink(page, "bits").equal((255 * x).long())
        assert source(page) == "a draw from the posterior"
        name = f"test image {rows[i]}, a {images.test_labels[rows[i]]}"
        assert name in find(page, "#explanation").text
        assert find(page, "#gallery :checked").accessible_name == name
        assert bound(page) == pytest.approx(bound_of(model, x, place(page)), abs=0.011)
        assert "with one draw" in find(page, "#note").text
    press(page, "to-mean")
    z = model.enc.encode(x)[0]
    torch.testing.assert_close(place(page), z, rtol=1e-4, atol=1e-5)
    assert bound(page) == pytest.approx(bound_of(model, x, z), abs=0.011)
    assert "is no draw" in find(page, "#note").text


def test_the_gallery_shows_the_assignments_images(page, images):
    rows = subset_rows(images.test_labels)
    script = """return [...document.querySelectorAll("#gallery label")].map((label, i) => {
        label.querySelector("canvas").id = `image-${i}`;
        return label.querySelector("input").ariaLabel;
    })"""
    names = page.execute_script(script)
    assert names == [f"test image {row}, a {images.test_labels[row]}" for row in rows]
    for i in (0, 43, 99):
        assert ink(page, f"image-{i}").equal(images.test[rows[i]].long())


def test_sliders_are_ordered_by_kl(page, model, images):
    kl = cost(model, all_images(images)).mean(0)
    names, costs = zip(*(slider.name.split() for slider in sliders(page)), strict=True)
    order = kl.argsort(descending=True)
    assert list(names) == [f"z{i + 1}" for i in order]
    assert list(map(shown, costs)) == pytest.approx(kl[order].tolist(), abs=0.006)


def test_each_slider_says_where_z_and_the_posterior_are(page, model, images):
    choose(page, 37)
    x, z = subset_images(images)[37], place(page)
    m, v = model.enc.encode(x)
    costs, reach = cost(model, x), page.execute_script("return content.reach")
    for slider in sliders(page):
        j = slider.i
        assert shown(slider.z) == pytest.approx(z[j].item(), abs=0.006)
        assert shown(slider.cost) == pytest.approx(costs[j].item(), abs=0.006)
        nearest = z[j].clamp(-reach, reach).item()  # a draw can be beyond the slider's end
        assert float(slider.value) == pytest.approx(nearest, abs=0.026)
        mean, deviation = slider.title.split(", ")
        mean, deviation = mean.removeprefix("posterior mean "), deviation.split()[-1]
        assert shown(mean) == pytest.approx(m[j].item(), abs=0.006)
        assert shown(deviation) == pytest.approx(v[j].sqrt().item(), abs=0.006)
        assert slider.ariaValueText == f"{slider.z}, {slider.title}"
        assert slider.ariaLabel == f"z {j + 1}, mean KL {slider.name.split()[1]}"
        assert slider.labelled


def test_bars_are_as_long_as_their_kl_up_to_the_whole(open_page, images, tmp_path):
    model = lively(3)
    model.enc.net[4].bias.zero_()
    model.enc.net[4].weight.mul_(3)
    explorer.write(model, images, "various", tmp_path / "explorer.html")
    page = open_page(tmp_path / "explorer.html")
    half = cost(model, all_images(images)).mean(0).max()  # the most useful dimension's mean
    costs = cost(model, subset_images(images))
    expected = (costs / (2 * half)).clamp(max=1)
    whole, others = costs.amax(1).argmax().item(), costs.amax(1).argmin().item()
    assert expected[whole].max() == 1 > expected[others].max()
    for i in whole, others:
        choose(page, i)
        for slider in sliders(page):
            assert slider.bar == pytest.approx(expected[i, slider.i].item(), abs=0.03)


def assert_bell(path, m, v):
    """Have a path be the density of N(m, v), from its peak at 0 to its foot at 1."""
    d = path.get_attribute("d")
    points = torch.tensor([[*map(float, pair.split(","))] for pair in d[1:-1].split("L")])
    density = Normal(m, v.sqrt()).log_prob(points[:, 0]).exp()
    height = 1 - density * (2 * math.pi * v).sqrt()
    torch.testing.assert_close(points[:, 1], height, rtol=1e-3, atol=1e-3)
    assert points[:, 1].min() < 0.01 and points[[0, -1], 1].min() > 0.99
    # Both sides are there.
    assert points[:, 0].mean().item() == pytest.approx(m.item(), abs=1e-3)


def test_bells_of_prior_and_posterior_stand_above_the_slider(open_page, images, tmp_path):
    shifted = lively(3)
    shifted.z_prior_m.fill_(0.5)
    shifted.z_prior_v.fill_(2.0)
    explorer.write(shifted, images, "shifted", tmp_path / "explorer.html")
    page = open_page(tmp_path / "explorer.html")
    m, v = shifted.enc.encode(subset_images(images)[20])
    reach = page.execute_script("return content.reach")
    thumb = 0.75 * float(
        page.execute_script("return getComputedStyle(document.body).fontSize")[:-2]
    )
    for slider in sliders(page):
        assert_bell(slider.prior, shifted.z_prior_m[0], shifted.z_prior_v[0])
        assert_bell(slider.posterior, m[slider.i], v[slider.i])
        box = slider.input.rect
        for path, mean in (slider.prior, 0.5), (slider.posterior, m[slider.i].item()):
            left, right = page.execute_script(
                "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]",
                path,
            )
            share = (mean + reach) / (2 * reach)
            middle = box["x"] + thumb / 2 + share * (box["width"] - thumb)
            assert (left + right) / 2 == pytest.approx(middle, abs=1)


def test_each_slider_moves_its_dimension_and_the_picture(page, model, images):
    furthest = model.enc.encode(all_images(images))[0].abs().max()
    press(page, "to-origin")
    assert place(page).equal(torch.zeros(10)) and source(page) == "the origin"
    expected, before = torch.zeros(10), ink(page, "image")
    for step, slider in enumerate(sliders(page), 1):
        slider.input.send_keys(Keys.ARROW_RIGHT * step)
        expected[slider.i] += 0.05 * step
        torch.testing.assert_close(place(page), expected)
        assert source(page) == "set by hand"
        assert float(slider.max) >= furthest > 4
        assert float(slider.min) <= -furthest
    for slider in sliders(page):
        assert shown(slider.z) == pytest.approx(expected[slider.i].item(), abs=0.006)
        assert slider.ariaValueText.startswith(f"{slider.z}, posterior mean")
    means = 255 * model.compute_sigmoid_given(expected)
    assert (ink(page, "image") - means).abs().max() <= 1
    assert not ink(page, "image").equal(before)
    assert bound(page) == pytest.approx(
        bound_of(model, subset_images(images)[20], expected), abs=0.011
    )


def test_the_picture_changes_with_the_choice_of_what_it_shows(page, model):
    press(page, "to-origin", "draws")
    drawn = ink(page, "image")
    assert set(drawn.tolist()) == {0, 255}
    means = 255 * model.compute_sigmoid_given(torch.zeros(10))
    assert means[drawn == 255].mean() > means[drawn == 0].mean()  # the likelier ones are drawn
    press(page, "means")
    assert (ink(page, "image") - means).abs().max() <= 1
    assert source(page) == "the origin"


def test_each_button_says_where_z_is_from(page):
    first = place(page)
    press(page, "to-sample")
    assert source(page) == "a draw from the posterior"
    assert (place(page) != first).all()
    press(page, "to-prior")
    assert source(page) == "a draw from the prior"
    assert "is no draw" in find(page, "#note").text


def test_where_z_is_and_the_bound_are_told_once_z_rests(page):
    page.execute_script(
        """window.said = [];
           new MutationObserver(() => said.push(document.getElementById("status").textContent))
             .observe(document.getElementById("status"), { childList: true });
           for (const id of ["to-mean", "to-prior", "to-origin"])
             document.getElementById(id).click();"""
    )
    words = ", ".join(f"{name} {find(page, f'#{name}').text}" for name in ("KL", "REC", "NELBO"))
    wait_for(lambda: page.execute_script("return said.length"))
    assert page.execute_script("return said[0]") == f"z is the origin. {words} nats."
    assert find(page, "#status").get_attribute("role") == "status"


def test_everything_has_a_name_that_can_be_spoken(page):
    script = """return [...document.querySelectorAll(
        "button, input, [role], [tabindex]")].filter(element => element.id !== "status")"""
    elements = page.execute_script(script)
    assert len(elements) > 120
    for element in (e for e in elements if e.get_attribute("name") != "test-image"):
        assert element.accessible_name, element.get_attribute("id")
