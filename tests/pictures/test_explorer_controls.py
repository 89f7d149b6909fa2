"""The gallery, sliders, buttons and numbers of the explorer page, and their names for speech."""

import math
from types import SimpleNamespace

import pytest
import torch
from browsing import choose, find, ink, numbers, press, source, z_of
from conftest import wait_for
from drawn import random_model
from selenium.webdriver import Keys
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.pictures import explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]


def kl_of(model, x):
    """The KL of each dimension for x (..., 784)."""
    m, v = model.enc.encode(x)
    return kl_divergence(Normal(m, v.sqrt()), Normal(0, 1))


def expected_numbers(model, x, z):
    """KL, REC and their sum for x (784,) at z."""
    kl = kl_of(model, x).sum().item()
    rec = -Bernoulli(logits=model.dec.decode(z)).log_prob(x).sum().item()
    return kl, rec, kl + rec


def sliders(page):
    """The content of each slider's row; its dimension i is counted from 0."""
    rows = page.execute_script(
        """return [...document.querySelectorAll("#dimensions > div")].map(row => {
             const find = selector => row.querySelector(selector), input = find("input");
             const { value, min, max, title, ariaLabel, ariaValueText } = input;
             const [z, kl] = [...row.querySelectorAll(".number")].map(e => e.innerText.trim());
             const [track, bar] = [".bar", ".bar div"].map(s => find(s).clientWidth);
             const label = find("label");
             return {
               i: Number(input.id.slice(1)) - 1,
               name: label.innerText, labelled: label.control === input,
               value, min, max, title, ariaLabel, ariaValueText, z, kl, bar: bar / track,
               input, prior: find(".prior"), posterior: find(".posterior"),
             };
           })"""
    )
    return [SimpleNamespace(**row) for row in rows]


def parse(text):
    """Read a number with two decimals from the page."""
    whole, decimals = text.replace("\u2212", "-").split(".")
    assert len(decimals) == 2
    return float(f"{whole}.{decimals}")


def test_a_chosen_image_is_encoded_and_its_nelbo_shown(page, model, images):
    rows = images.subset_indices
    for i in (37, 99):
        press(page, "to-origin")
        choose(page, i)
        x = images.subset_bits[i]
        assert ink(page, "bits").equal((255 * x).long())
        assert source(page) == "a sample from the posterior"
        name = f"test image {rows[i]}, labelled {images.test_labels[rows[i]]}"
        assert name in find(page, "#explanation").text
        assert find(page, "#gallery :checked").accessible_name == name
        assert numbers(page) == pytest.approx(expected_numbers(model, x, z_of(page)), abs=0.011)
        assert find(page, "#sum-name").text == "NELBO"
    press(page, "to-mean")
    z = model.enc.encode(x)[0]
    torch.testing.assert_close(z_of(page), z, rtol=1e-4, atol=1e-5)
    assert numbers(page) == pytest.approx(expected_numbers(model, x, z), abs=0.011)
    assert find(page, "#sum-name").text == "KL + REC"


def test_the_gallery_shows_the_subset(page, images):
    rows = images.subset_indices
    script = """return [...document.querySelectorAll("#gallery label")].map((label, i) => {
        label.querySelector("canvas").id = `image-${i}`;
        return label.querySelector("input").ariaLabel;
    })"""
    names = page.execute_script(script)
    assert names == [f"test image {row}, labelled {images.test_labels[row]}" for row in rows]
    for i in (0, 43, 99):
        assert ink(page, f"image-{i}").equal(images.test[rows[i]].long())


def test_sliders_are_ordered_by_kl(page, model, images):
    kl = kl_of(model, images.test_bits).mean(0)
    names, costs = zip(*(slider.name.split() for slider in sliders(page)), strict=True)
    order = kl.argsort(descending=True)
    assert list(names) == [f"z{i + 1}" for i in order]
    assert list(map(parse, costs)) == pytest.approx(kl[order].tolist(), abs=0.006)


def test_each_slider_shows_z_and_the_posterior(page, model, images):
    choose(page, 37)
    x, z = images.subset_bits[37], z_of(page)
    m, v = model.enc.encode(x)
    costs, limit = kl_of(model, x), page.execute_script("return content.limit")
    for slider in sliders(page):
        j = slider.i
        assert parse(slider.z) == pytest.approx(z[j].item(), abs=0.006)
        assert parse(slider.kl) == pytest.approx(costs[j].item(), abs=0.006)
        nearest = z[j].clamp(-limit, limit).item()  # A sample may be beyond the end.
        assert float(slider.value) == pytest.approx(nearest, abs=0.026)
        mean, deviation = slider.title.split(", ")
        mean, deviation = mean.removeprefix("posterior mean "), deviation.split()[-1]
        assert parse(mean) == pytest.approx(m[j].item(), abs=0.006)
        assert parse(deviation) == pytest.approx(v[j].sqrt().item(), abs=0.006)
        assert slider.ariaValueText == f"{slider.z}, {slider.title}"
        assert slider.ariaLabel == f"z {j + 1}, mean KL {slider.name.split()[1]}"
        assert slider.labelled


def test_the_length_of_a_bar_is_proportional_to_its_kl(open_page, images, tmp_path):
    model = random_model(3)
    model.enc.net[4].bias.zero_()
    model.enc.net[4].weight.mul_(3)
    explorer.write(model, images, "various", tmp_path / "explorer.html")
    page = open_page(tmp_path / "explorer.html")
    half = kl_of(model, images.test_bits).mean(0).max()
    costs = kl_of(model, images.subset_bits)
    expected = (costs / (2 * half)).clamp(max=1)
    whole, others = costs.amax(1).argmax().item(), costs.amax(1).argmin().item()
    assert expected[whole].max() == 1 > expected[others].max()
    for i in whole, others:
        choose(page, i)
        for slider in sliders(page):
            assert slider.bar == pytest.approx(expected[i, slider.i].item(), abs=0.03)


def assert_bell(path, m, v):
    """Check that a path is the density of N(m, v), with its peak at 0 and its foot at 1."""
    d = path.get_attribute("d")
    points = torch.tensor([[*map(float, pair.split(","))] for pair in d[1:-1].split("L")])
    density = Normal(m, v.sqrt()).log_prob(points[:, 0]).exp()
    height = 1 - density * (2 * math.pi * v).sqrt()
    torch.testing.assert_close(points[:, 1], height, rtol=1e-3, atol=1e-3)
    assert points[:, 1].min() < 0.01 and points[[0, -1], 1].min() > 0.99
    # The path has both sides of the bell.
    assert points[:, 0].mean().item() == pytest.approx(m.item(), abs=1e-3)


def test_prior_and_posterior_are_shown_above_the_slider(open_page, images, tmp_path):
    shifted = random_model(3)
    shifted.z_prior_m.fill_(0.5)
    shifted.z_prior_v.fill_(2.0)
    explorer.write(shifted, images, "shifted", tmp_path / "explorer.html")
    page = open_page(tmp_path / "explorer.html")
    m, v = shifted.enc.encode(images.subset_bits[20])
    limit = page.execute_script("return content.limit")
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
            share = (mean + limit) / (2 * limit)
            middle = box["x"] + thumb / 2 + share * (box["width"] - thumb)
            assert (left + right) / 2 == pytest.approx(middle, abs=1)


def test_each_slider_changes_its_dimension_and_the_picture(page, model, images):
    furthest = model.enc.encode(images.test_bits)[0].abs().max()
    press(page, "to-origin")
    assert z_of(page).equal(torch.zeros(10)) and source(page) == "the origin"
    expected, before = torch.zeros(10), ink(page, "image")
    for step, slider in enumerate(sliders(page), 1):
        slider.input.send_keys(Keys.ARROW_RIGHT * step)
        expected[slider.i] += 0.05 * step
        torch.testing.assert_close(z_of(page), expected)
        assert source(page) == "set by hand"
        assert float(slider.max) >= furthest > 4
        assert float(slider.min) <= -furthest
    for slider in sliders(page):
        assert parse(slider.z) == pytest.approx(expected[slider.i].item(), abs=0.006)
        assert slider.ariaValueText.startswith(f"{slider.z}, posterior mean")
    means = 255 * model.compute_sigmoid_given(expected)
    assert (ink(page, "image") - means).abs().max() <= 1
    assert not ink(page, "image").equal(before)
    assert numbers(page) == pytest.approx(
        expected_numbers(model, images.subset_bits[20], expected), abs=0.011
    )


def test_the_picture_shows_sampled_pixels_or_means(page, model):
    press(page, "to-origin", "samples")
    sampled = ink(page, "image")
    assert set(sampled.tolist()) == {0, 255}
    means = 255 * model.compute_sigmoid_given(torch.zeros(10))
    assert means[sampled == 255].mean() > means[sampled == 0].mean()
    press(page, "means")
    assert (ink(page, "image") - means).abs().max() <= 1
    assert source(page) == "the origin"


def test_each_button_names_the_source_of_z(page):
    first = z_of(page)
    press(page, "to-sample")
    assert source(page) == "a sample from the posterior"
    assert (z_of(page) != first).all()
    press(page, "to-prior")
    assert source(page) == "a sample from the prior"
    assert find(page, "#sum-name").text == "KL + REC"


def test_any_of_ten_samples_from_the_prior_can_be_chosen(page, model):
    press(page, "to-prior")
    first = z_of(page)
    samples = page.find_elements("css selector", "#prior-samples button")
    assert len(samples) == 10
    page.execute_script("arguments[0].firstElementChild.id = 'last'", samples[9])
    shown = ink(page, "last")
    samples[9].click()
    assert (z_of(page) != first).all() and source(page) == "a sample from the prior"
    assert (shown - 255 * model.compute_sigmoid_given(z_of(page))).abs().max() <= 1
    samples[0].click()
    assert z_of(page).equal(first)


def test_a_screen_reader_hears_z_and_the_numbers_once_z_rests(page):
    page.execute_script(
        """window.said = [];
           new MutationObserver(() => said.push(document.getElementById("status").textContent))
             .observe(document.getElementById("status"), { childList: true });
           for (const id of ["to-mean", "to-prior", "to-origin"])
             document.getElementById(id).click();"""
    )
    wait_for(lambda: page.execute_script("return said.length"))
    said = page.execute_script("return said[0]")
    assert "the origin" in said
    assert all(find(page, f"#{name}").text in said for name in ("KL", "REC", "sum"))
    assert find(page, "#status").get_attribute("role") == "status"


def test_every_control_has_an_accessible_name(page):
    script = """return [...document.querySelectorAll(
        "button, input, [role], [tabindex]")].filter(element => element.id !== "status")"""
    elements = page.execute_script(script)
    assert len(elements) > 120
    for element in (e for e in elements if e.get_attribute("name") != "test-image"):
        assert element.accessible_name, element.get_attribute("id")
