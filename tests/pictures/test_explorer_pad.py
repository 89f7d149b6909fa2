"""Writing on the pad of the explorer page with a mouse and with fingers, and clearing it."""

from itertools import pairwise

import pytest
import torch
from browsing import choose, find, ink, numbers, press, touch, visible, z_of
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from torch.distributions import Bernoulli, Normal, kl_divergence

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]

PEN = 1.3
CROSS = [[(0.6, 0.6), (0.9, 0.95)], [(0.85, 0.6), (0.7, 0.8), (0.6, 0.95)]]


def in_window(page, stroke):
    """The positions in the window of a stroke, whose points are shares of the pad's sides."""
    box = visible(page, find(page, "#pad")).rect
    left, top = page.execute_script("return [scrollX, scrollY]")
    return [
        (round(box["x"] - left + x * box["width"]), round(box["y"] - top + y * box["height"]))
        for x, y in stroke
    ]


def write(page, *strokes):
    """Write strokes with the mouse."""
    for stroke in strokes:
        actions = ActionBuilder(page, duration=0)
        first, *others = in_window(page, stroke)
        actions.pointer_action.move_to_location(*first).pointer_down()
        for point in others:
            actions.pointer_action.move_to_location(*point)
        actions.pointer_action.pointer_up()
        actions.perform()


def strokes_of(page):
    """The strokes on the pad, as shares of its sides."""
    strokes = page.execute_script("return state.image.strokes") or []
    return [torch.tensor(stroke) / 28 for stroke in strokes]


def assert_written(page, *strokes):
    """Check that the page has these strokes, to half a pixel of the window."""
    written, side = strokes_of(page), find(page, "#pad").size["width"]
    assert len(written) == len(strokes)
    for ours, theirs in zip(written, strokes, strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs), rtol=0, atol=1.01 / side)


def inked(strokes):
    """The pixels (784,) of strokes: the share of each that is within a pen's radius."""
    row, column = torch.arange(28.0).repeat_interleave(28), torch.arange(28.0).repeat(28)
    pixels = torch.stack([column, row], 1)
    t = torch.linspace(0, 1, 200)[:, None]
    lines = [torch.lerp(p, q, t) for s in strokes for p, q in pairwise(s)]
    distances = torch.cdist(pixels, torch.cat(lines)).min(1).values
    return (PEN + 0.5 - distances).clamp(0, 1)


def normalized(strokes):
    """The pixels (784,) of strokes like MNIST's: 20 pixels long, with their mass at (14, 14)."""
    everything = torch.cat(strokes)
    least, most = everything.min(0).values, everything.max(0).values
    scale = (20 - 2 * PEN) / (most - least).max()
    strokes = [(s - (least + most) / 2) * scale + 14 for s in strokes]
    pixels = inked(strokes).view(28, 28)
    mass = torch.stack([pixels.sum(axis) @ torch.arange(28.0) for axis in (0, 1)]) / pixels.sum()
    return inked([s - mass + 14 for s in strokes])


def test_a_digit_is_scaled_and_centred_like_those_of_mnist(page):
    write(page, *CROSS)
    assert_written(page, *CROSS)
    press(page, "take-a")
    expected = normalized(strokes_of(page))
    torch.testing.assert_close(ink(page, "a") / 255, expected, rtol=0, atol=0.03)
    certain = (expected - 0.5).abs() > 0.03
    assert certain.sum() > 770
    assert (ink(page, "bits") / 255)[certain].equal((expected >= 0.5).float()[certain])
    picture = ink(page, "a").view(28, 28)
    assert {(picture > 0).any(axis).sum().item() for axis in (0, 1)} & {20, 21, 22}
    assert "your digit" in find(page, "#a").get_attribute("ariaLabel")


def test_a_written_digit_is_encoded_with_the_same_noise(page, model, images):
    m, v = model.enc.encode(images.subset_bits[20])
    noise = (z_of(page) - m) / v.sqrt()
    for stroke in CROSS:
        write(page, stroke)
        x = ink(page, "bits") / 255
        m, v = model.enc.encode(x)
        torch.testing.assert_close((z_of(page) - m) / v.sqrt(), noise, rtol=1e-3, atol=1e-3)
    kl = kl_divergence(Normal(m, v.sqrt()), Normal(0, 1)).sum().item()
    rec = -Bernoulli(logits=model.dec.decode(z_of(page))).log_prob(x).sum().item()
    assert numbers(page) == pytest.approx([kl, rec, kl + rec], abs=0.011)
    assert page.find_elements("css selector", "#gallery :checked") == []


def pad(page):
    """The pixels of the pad, 280 x 280, 0 to 1."""
    pixels = page.execute_script(
        """const fast = { willReadFrequently: true };
           const copy = new OffscreenCanvas(280, 280).getContext("2d", fast);
           copy.drawImage(document.getElementById("pad"), 0, 0);
           const { data } = copy.getImageData(0, 0, 280, 280);
           return Array.from(data.filter((_, i) => i % 4 === 3))"""
    )
    return torch.tensor(pixels).view(280, 280) / 255


def test_the_pad_shows_the_test_image_or_the_strokes(page, images):
    hint = find(page, "#hint")
    choose(page, 3)
    shown = pad(page).view(28, 10, 28, 10)
    assert (shown.amax((1, 3)) - shown.amin((1, 3))).max() == 0
    row = page.execute_script("return content.indices[3]")
    expected = images.test[row].view(28, 28) / 255
    torch.testing.assert_close(shown.mean((1, 3)), expected, rtol=0, atol=0.01)
    assert not hint.is_displayed()

    write(page, *CROSS)
    row, column = torch.arange(280.0).add(0.5).repeat_interleave(280), torch.arange(280.0) + 0.5
    centres = torch.stack([column.repeat(280), row], 1)
    lines = torch.cat([torch.lerp(s[:-1], s[1:], t) for s in strokes_of(page)
                       for t in torch.linspace(0, 1, 100)])  # fmt: skip
    distances = torch.cdist(centres, 280 * lines).min(1).values.view(280, 280)
    assert (pad(page)[distances < 10 * PEN - 1] == 1).all()
    assert (pad(page)[distances > 10 * PEN + 1] == 0).all()
    assert not hint.is_displayed()

    press(page, "clear")
    assert not pad(page).any() and not ink(page, "bits").any()
    assert hint.is_displayed()


def test_a_dot_and_a_small_stroke_stay_small(page):
    write(page, [(0.2, 0.2)])
    dot = pad(page)
    assert dot[56, 56] == 1 and 300 < dot.sum() < 700  # a disc of 13 pixels
    assert 0 < (ink(page, "bits") > 0).sum() < 9
    press(page, "clear")
    write(page, [(0.2, 0.2), (0.24, 0.2)])
    wide = ink(page, "bits").view(28, 28).any(0).sum()
    assert 4 <= wide <= 10


def test_a_wide_digit_is_as_large_as_a_high_one(page):
    for stroke, axis in ([(0.4, 0.1), (0.42, 0.9)], 1), ([(0.2, 0.4), (0.5, 0.42)], 0):
        press(page, "clear")
        write(page, stroke)
        assert ink(page, "bits").view(28, 28).any(axis).sum() in (19, 20, 21)


def test_only_the_main_button_writes_and_only_while_it_is_pressed(page):
    choose(page, 3)
    first, *others = in_window(page, CROSS[0])
    actions = ActionBuilder(page, duration=0)
    actions.pointer_action.move_to_location(*first)
    for point in others:
        actions.pointer_action.move_to_location(*point)
    actions.pointer_action.pointer_down(2).pointer_up(2)
    actions.perform()
    assert page.execute_script("return state.image.index") == 3
    write(page, CROSS[0])
    ActionChains(page, duration=0).move_by_offset(-9, -9).perform()
    assert_written(page, CROSS[0])


@pytest.mark.parametrize("empty", [True, False])
def test_a_digit_that_is_replaced_while_it_is_written_stays_gone(page, empty):
    press(page, "clear")
    page.execute_script(
        """element("pad").addEventListener(
             "pointerdown", () => document.querySelector(arguments[0]).click(), { once: true });""",
        "#clear" if empty else "#gallery input",
    )
    write(page, CROSS[0])
    assert strokes_of(page) == []
    assert find(page, "#hint").is_displayed() == empty


def test_a_finger_writes_until_it_is_lifted_or_cancelled(open_page, path):
    page = open_page(path, 390, 700)
    page.execute_script("scrollTo(0, 300)")
    (first, last), other = in_window(page, CROSS[0]), in_window(page, CROSS[1])
    assert page.execute_script("return scrollY") > 0
    touch(page, "touchStart", first)
    touch(page, "touchMove", last)
    touch(page, "touchStart", last, other[0])  # A palm may be a second touch.
    touch(page, "touchMove", last, other[1])
    touch(page, "touchEnd")
    assert_written(page, CROSS[0])
    touch(page, "touchStart", other[0])
    touch(page, "touchMove", other[1])
    touch(page, "touchCancel")
    ActionChains(page, duration=0).move_to_element(find(page, "#pad")).perform()
    assert_written(page, CROSS[0], CROSS[1][:2])
