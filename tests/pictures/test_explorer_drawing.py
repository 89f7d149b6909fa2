"""Drawing on the pad of the explorer's page, with a mouse, with fingers, and clearing it."""

from itertools import pairwise

import pytest
import torch
from browsing import bound, choose, find, ink, place, press, touch, visible
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from torch.distributions import Bernoulli, Normal, kl_divergence

from codebase.evaluate import subset_images

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]

PEN = 1.3
CROSS = [[(0.6, 0.6), (0.9, 0.95)], [(0.85, 0.6), (0.7, 0.8), (0.6, 0.95)]]


def in_window(page, stroke):
    """The places in the window of a stroke's, which are shares of the pad's width and height."""
    box = visible(page, find(page, "#pad")).rect
    left, top = page.execute_script("return [scrollX, scrollY]")
    return [
        (round(box["x"] - left + x * box["width"]), round(box["y"] - top + y * box["height"]))
        for x, y in stroke
    ]


def draw(page, *strokes):
    """Draw strokes with the mouse."""
    for stroke in strokes:
        actions = ActionBuilder(page, duration=0)
        first, *others = in_window(page, stroke)
        actions.pointer_action.move_to_location(*first).pointer_down()
        for point in others:
            actions.pointer_action.move_to_location(*point)
        actions.pointer_action.pointer_up()
        actions.perform()


def strokes_of(page):
    """The strokes of the page, as shares of the pad."""
    strokes = page.execute_script("return state.image.strokes") or []
    return [torch.tensor(stroke) / 28 for stroke in strokes]


def assert_drawn(page, *strokes):
    """Have the page hold these strokes, to half a pixel of the window."""
    drawn, side = strokes_of(page), find(page, "#pad").size["width"]
    assert len(drawn) == len(strokes)
    for ours, theirs in zip(drawn, strokes, strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs), rtol=0, atol=1.01 / side)


def inked(strokes):
    """Pixels (784,) of strokes in pixels: how much of each is within a pen's radius of them."""
    row, column = torch.arange(28.0).repeat_interleave(28), torch.arange(28.0).repeat(28)
    pixels = torch.stack([column, row], 1)
    t = torch.linspace(0, 1, 200)[:, None]
    ways = [torch.lerp(p, q, t) for s in strokes for p, q in pairwise(s)]
    distances = torch.cdist(pixels, torch.cat(ways)).min(1).values
    return (PEN + 0.5 - distances).clamp(0, 1)


def normalized(strokes):
    """Pixels (784,) of strokes as MNIST's are: 20 pixels long, their mass at (14, 14)."""
    everything = torch.cat(strokes)
    least, most = everything.min(0).values, everything.max(0).values
    scale = (20 - 2 * PEN) / (most - least).max()
    strokes = [(s - (least + most) / 2) * scale + 14 for s in strokes]
    pixels = inked(strokes).view(28, 28)
    mass = torch.stack([pixels.sum(axis) @ torch.arange(28.0) for axis in (0, 1)]) / pixels.sum()
    return inked([s - mass + 14 for s in strokes])


def test_a_drawing_is_sized_and_centred_as_mnist_does(page):
    draw(page, *CROSS)
    assert_drawn(page, *CROSS)
    press(page, "take-a")
    expected = normalized(strokes_of(page))
    torch.testing.assert_close(ink(page, "a") / 255, expected, rtol=0, atol=0.03)
    certain = (expected - 0.5).abs() > 0.03
    assert certain.sum() > 770
    assert (ink(page, "bits") / 255)[certain].equal((expected >= 0.5).float()[certain])
    picture = ink(page, "a").view(28, 28)
    assert {(picture > 0).any(axis).sum().item() for axis in (0, 1)} & {20, 21, 22}
    assert "the drawing" in find(page, "#explanation").text
    assert find(page, "#a").get_attribute("ariaLabel") == "Image A: the drawing"


def test_a_drawing_is_encoded_with_the_noise_that_was_there(page, model, images):
    m, v = model.enc.encode(subset_images(images)[20])
    noise = (place(page) - m) / v.sqrt()
    for stroke in CROSS:
        draw(page, stroke)
        x = ink(page, "bits") / 255
        m, v = model.enc.encode(x)
        torch.testing.assert_close((place(page) - m) / v.sqrt(), noise, rtol=1e-3, atol=1e-3)
    kl = kl_divergence(Normal(m, v.sqrt()), Normal(0, 1)).sum().item()
    rec = -Bernoulli(logits=model.dec.decode(place(page))).log_prob(x).sum().item()
    assert bound(page) == pytest.approx([kl, rec, kl + rec], abs=0.011)
    assert page.find_elements("css selector", "#gallery :checked") == []


def pad(page):
    """What the pad shows, 280 x 280, 0 to 1."""
    pixels = page.execute_script(
        """const fast = { willReadFrequently: true };
           const copy = new OffscreenCanvas(280, 280).getContext("2d", fast);
           copy.drawImage(document.getElementById("pad"), 0, 0);
           const { data } = copy.getImageData(0, 0, 280, 280);
           return Array.from(data.filter((_, i) => i % 4 === 3))"""
    )
    return torch.tensor(pixels).view(280, 280) / 255


def test_the_pad_shows_the_test_image_or_else_what_is_drawn(page, images):
    hint = find(page, "#hint")
    choose(page, 3)
    shown = pad(page).view(28, 10, 28, 10)
    assert (shown.amax((1, 3)) - shown.amin((1, 3))).max() == 0
    row = page.execute_script("return content.rows[3]")
    expected = images.test[row].view(28, 28) / 255
    torch.testing.assert_close(shown.mean((1, 3)), expected, rtol=0, atol=0.01)
    assert not hint.is_displayed()

    draw(page, *CROSS)
    row, column = torch.arange(280.0).add(0.5).repeat_interleave(280), torch.arange(280.0) + 0.5
    centres = torch.stack([column.repeat(280), row], 1)
    way = torch.cat([torch.lerp(s[:-1], s[1:], t) for s in strokes_of(page)
                     for t in torch.linspace(0, 1, 100)])  # fmt: skip
    distances = torch.cdist(centres, 280 * way).min(1).values.view(280, 280)
    assert (pad(page)[distances < 10 * PEN - 1] == 1).all()
    assert (pad(page)[distances > 10 * PEN + 1] == 0).all()
    assert not hint.is_displayed()

    press(page, "clear")
    assert not pad(page).any() and not ink(page, "bits").any()
    assert hint.is_displayed()


def test_a_dot_and_a_small_stroke_stay_small(page):
    draw(page, [(0.2, 0.2)])
    dot = pad(page)
    assert dot[56, 56] == 1 and 300 < dot.sum() < 700  # a disc of 13 pixels
    assert 0 < (ink(page, "bits") > 0).sum() < 9
    press(page, "clear")
    draw(page, [(0.2, 0.2), (0.24, 0.2)])
    wide = ink(page, "bits").view(28, 28).any(0).sum()
    assert 4 <= wide <= 10


def test_a_wide_drawing_is_as_large_as_a_high_one(page):
    for stroke, axis in ([(0.4, 0.1), (0.42, 0.9)], 1), ([(0.2, 0.4), (0.5, 0.42)], 0):
        press(page, "clear")
        draw(page, stroke)
        assert ink(page, "bits").view(28, 28).any(axis).sum() in (19, 20, 21)


def test_only_the_main_button_draws_and_only_while_it_is_pressed(page):
    choose(page, 3)
    first, *others = in_window(page, CROSS[0])
    actions = ActionBuilder(page, duration=0)
    actions.pointer_action.move_to_location(*first)
    for point in others:
        actions.pointer_action.move_to_location(*point)
    actions.pointer_action.pointer_down(2).pointer_up(2)
    actions.perform()
    assert page.execute_script("return state.image.index") == 3
    draw(page, CROSS[0])
    ActionChains(page, duration=0).move_by_offset(-9, -9).perform()
    assert_drawn(page, CROSS[0])


@pytest.mark.parametrize("empty", [True, False])
def test_a_drawing_that_goes_while_it_is_drawn_stays_gone(page, empty):
    press(page, "clear")
    page.execute_script(
        """element("pad").addEventListener(
             "pointerdown", () => document.querySelector(arguments[0]).click(), { once: true });""",
        "#clear" if empty else "#gallery input",
    )
    draw(page, CROSS[0])
    assert strokes_of(page) == []
    assert find(page, "#hint").is_displayed() == empty


def test_a_finger_draws_where_it_is_until_it_is_lifted_or_cancelled(open_page, path):
    page = open_page(path, 390, 700)
    page.execute_script("scrollTo(0, 300)")
    (first, last), other = in_window(page, CROSS[0]), in_window(page, CROSS[1])
    assert page.execute_script("return scrollY") > 0
    touch(page, "touchStart", first)
    touch(page, "touchMove", last)
    touch(page, "touchStart", last, other[0])  # a second finger, such as the palm's
    touch(page, "touchMove", last, other[1])
    touch(page, "touchEnd")
    assert_drawn(page, CROSS[0])
    touch(page, "touchStart", other[0])
    touch(page, "touchMove", other[1])
    touch(page, "touchCancel")
    ActionChains(page, duration=0).move_to_element(find(page, "#pad")).perform()
    assert_drawn(page, CROSS[0], CROSS[1][:2])
