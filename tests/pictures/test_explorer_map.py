"""The map of the explorer page: its points, and moving z with mouse, finger and keys."""

from dataclasses import replace

import pytest
import torch
from browsing import change, choose, find, ink, press, source, touch, z_of
from conftest import wait_for
from plane import Map
from selenium.webdriver import Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder

from codebase.pictures import drawing, explorer

pytestmark = pytest.mark.slow
pytest_plugins = ["explorer_pages"]


@pytest.fixture
def map_(page):
    return Map(page)


def assert_at(map_, place, within=1.0):
    assert map_.cross() == pytest.approx([float(value) for value in place], abs=within)


def off_plane(map_, move):
    """The part of a step of z that is orthogonal to the plane."""
    return move - move @ map_.directions.T @ map_.directions


def shade(colour):
    """The parts, 0 to 255, of a colour like #010203."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def assert_points_have_colours(map_):
    """Check that each isolated point has the colour of its digit."""
    digits = torch.tensor(map_.page.execute_script("return content.labels"))
    colours = torch.tensor([shade(colour) for colour in drawing.COLOURS])
    chosen = map_.lonely(6)
    assert len(chosen) > 40 and len(digits[chosen].unique()) == 10
    seen = map_.seen_at("points", map_.places[chosen])
    assert (seen[:, 3] == 255).all()
    assert (seen[:, :3] - colours[digits[chosen]]).abs().max() <= 2


def test_every_point_is_on_the_map_in_the_colour_of_its_digit(map_):
    places = map_.places
    assert places.min() > 0 and places.max() < map_.side
    size = places.amax(0) - places.amin(0)
    assert size.max() > 0.85 * map_.side
    middle = (places.amax(0) + places.amin(0)) / 2
    torch.testing.assert_close(middle, torch.full((2,), map_.side / 2), rtol=0, atol=1.5)
    assert_points_have_colours(map_)
    assert all(label in find(map_.page, "#axes").text for label in map_.labels)


@pytest.mark.parametrize("labels", [range(1, 27), ()], ids=["letters", "no labels"])
def test_the_map_shows_other_labels_or_none(open_page, model, images, tmp_path, labels):
    values = torch.tensor([*labels]).repeat(385)[: len(images.test)]
    explorer.write(model, replace(images, test_labels=values), "", tmp_path / "page.html")
    map_ = Map(open_page(tmp_path / "page.html"))
    legend = find(map_.page, "#legend")
    assert legend.text.split() == [str(label) for label in labels]
    assert legend.rect["width"] <= map_.side + 2
    assert ("coloured by label" in find(map_.page, "#map .lead").text) == bool(labels)
    map_.hover(map_.places[map_.lonely(12)[0]])
    assert ("labelled" in find(map_.page, "#tip").text) == bool(labels)
    shades = {label: torch.tensor(shade(drawing.COLOURS[label % 10])) for label in labels}
    chosen = map_.lonely(6)
    seen = map_.seen_at("points", map_.places[chosen])[:, :3]
    for i, colour in zip(chosen, seen, strict=True):
        label = map_.page.execute_script(f"return content.labels[{i}]")
        expected = shades[label] if labels else map_.colour("--muted")
        assert (colour - expected).abs().max() <= 2


def test_points_are_at_the_posterior_means(map_, model, images):
    m, _ = model.enc.encode(images.subset_bits)
    expected = (m - map_.origin) @ map_.directions.T
    torch.testing.assert_close(map_.points[:100], expected, rtol=1e-4, atol=1e-4)


def test_the_map_adapts_to_other_colours_and_sizes(map_):
    page, light = map_.page, map_.colour("--paper")
    for width, scheme, density in [(1280, "dark", 1), (800, "dark", 2), (390, "light", 2)]:
        change(page, width, 900, scheme, density)
        for canvas in "points", "cross":
            script = (
                f"const canvas = element('{canvas}'); return [canvas.width, canvas.clientWidth]"
            )
            pixels, side = page.execute_script(script)
            assert pixels == density * side
        assert map_.colour("--paper").equal(light) == (scheme == "light")
        before = map_.cross()
        map_.measure()
        assert_at(map_, before, within=0.1)
        assert_points_have_colours(map_)


def test_images_are_inverted_only_in_the_dark_scheme(open_page, path):
    page = open_page(path)
    script = """return [...document.querySelectorAll("canvas[width='28'], #pad")].map(
        canvas => getComputedStyle(canvas).filter)"""
    assert set(page.execute_script(script)) == {"none"}
    change(page, 1280, 900, "dark")
    assert set(page.execute_script(script)) == {"invert(1)"}


def test_the_line_from_a_to_b_has_ends_with_letters(map_):
    page = map_.page
    for i, name in (20, "a"), (70, "b"):  # the ends at the start
        row = page.execute_script(f"return content.indices[{i}]")
        assert f"test image {row}," in find(page, f"#{name}").get_attribute("ariaLabel")
    for i, end in [(5, "a"), (95, "b")]:
        choose(page, i)
        press(page, "to-origin", f"take-{end}")
        x, y = map_.places[i].long().tolist()
        assert map_.amount("cross", "--text")[y - 2 : y + 2, x - 2 : x + 2].min() > 0.9  # a disc
    # The cross moves to a corner, where it does not cover the line.
    map_.mouse(map_.places[0], (5, map_.side - 5))
    ink_ = map_.amount("cross", "--text")
    a, b = map_.places[5], map_.places[95]
    apart = (b - a).norm()
    assert apart > 50
    for t in torch.linspace(0, 1, 20):
        x, y = torch.lerp(a, b, t).long().tolist()
        assert ink_[y - 1 : y + 2, x - 1 : x + 2].max() > 0.5
    for end, other in (a, b), (b, a):
        x, y = (end + 14 * (end - other) / apart).long().tolist()
        assert ink_[y - 6 : y + 6, x - 6 : x + 6].sum() > 10  # a letter
    assert ink_.sum() < 3 * apart + 400  # Nothing else has this colour.


@pytest.fixture
def corners(map_):
    """The outermost test images on each side whose points are isolated."""
    chosen = torch.tensor(map_.lonely(12))
    places = map_.places[chosen]
    ends = [places[:, 0].argmin(), places[:, 0].argmax(), places[:, 1].argmin()]
    return chosen[torch.stack([*ends, places[:, 1].argmax()])].tolist()


def test_a_point_shows_its_image_and_a_click_goes_there(map_, corners, model, images):
    page, tip = map_.page, find(map_.page, "#tip")
    everything = images.test_bits
    assert not tip.is_displayed()
    for i in corners:
        map_.hover(map_.places[i])
        row = int(tip.text.split()[2].strip(","))
        assert tip.text == f"test image {row}, labelled {images.test_labels[row]}"
        assert row == page.execute_script(f"return content.indices[{i}]")
        assert ink(page, "tip canvas").equal(images.test[row].long())
        plane = find(page, "#cross").rect
        assert plane["x"] - 1 <= tip.rect["x"]
        assert tip.rect["x"] + tip.rect["width"] <= plane["x"] + plane["width"] + 1
        assert plane["y"] - 1 <= tip.rect["y"]
        assert tip.rect["y"] + tip.rect["height"] <= plane["y"] + plane["height"] + 1
        map_.mouse(map_.places[i], map_.places[i] + 2)  # The hand may tremble.
        x = images.subset_bits[i] if i < 100 else everything[row]
        torch.testing.assert_close(z_of(page), model.enc.encode(x)[0], rtol=1e-4, atol=1e-5)
        assert source(page) == "the posterior mean"
        assert str(row) in find(page, "#explanation").text
        assert_at(map_, map_.places[i])
    place, before = map_.empty_place(), z_of(page)
    map_.hover(place)
    assert tip.text == "decoded"
    preview = ink(page, "tip canvas")
    map_.hover((map_.side / 2, -30))
    assert not tip.is_displayed()
    assert z_of(page).equal(before)
    map_.mouse(place)  # The preview shows the image that a click decodes.
    assert (preview - 255 * model.compute_sigmoid_given(z_of(page))).abs().max() <= 3


def test_a_click_beside_all_points_moves_z_parallel_to_the_plane(map_):
    page, at = map_.page, map_.empty_place()
    before, start = z_of(page), torch.tensor(map_.cross())
    assert off_plane(map_, before).abs().max() > 0.1
    map_.mouse(at)
    assert_at(map_, at)
    assert source(page) == "set by hand"
    step = (at - start) / map_.scale * torch.tensor([1, -1])
    torch.testing.assert_close(
        (z_of(page) - before) @ map_.directions.T, step, rtol=0, atol=1.5 / map_.scale
    )
    assert off_plane(map_, z_of(page) - before).abs().max() < 1e-4


def test_dragging_moves_z_also_beyond_the_map(map_, corners):
    page, tip = map_.page, find(map_.page, "#tip")
    start, point = map_.empty_place(), map_.places[corners[0]]
    index = page.execute_script("return state.image.index")
    map_.mouse(start, point, release=False)
    assert not tip.is_displayed()
    map_.mouse(point, button=None)
    actions = ActionBuilder(page, duration=0)
    actions.pointer_action.pointer_up()
    actions.perform()
    assert_at(map_, point)
    assert page.execute_script("return state.image.index") == index  # It was not a click.
    map_.hover(start)
    assert_at(map_, point)
    map_.mouse(start, (-40, map_.side / 2))
    assert_at(map_, (0.01 * map_.side, map_.side / 2))  # The cross stays visible.
    u = (-40 - map_.zero[0]) / map_.scale
    z = (z_of(page) - map_.origin) @ map_.directions[0]
    assert z.item() == pytest.approx(u.item(), abs=1.5 / map_.scale)


def test_only_the_main_button_and_the_first_finger_move_z(map_):
    page, at = map_.page, map_.empty_place()
    before = map_.cross()
    map_.mouse(at, button=2)
    map_.hover(at + 30)
    assert_at(map_, before)
    # The finger moves horizontally, because it scrolls the page vertically.
    right = torch.tensor([1.0, 0.0])
    first, last, other, moved = (map_.in_window(at + dx * right) for dx in (0, 15, -15, -40))
    touch(page, "touchStart", first)
    touch(page, "touchMove", last)
    touch(page, "touchStart", last, other)
    touch(page, "touchMove", last, moved)
    touch(page, "touchEnd")
    assert_at(map_, at + 15 * right, within=1.5)


def test_a_finger_taps_and_drags_until_its_touch_is_cancelled(map_, corners):
    page, i = map_.page, corners[1]
    touch(page, "touchStart", map_.in_window(map_.places[i]))
    touch(page, "touchEnd")
    assert page.execute_script("return state.image.index") == i
    at = map_.empty_place()
    touch(page, "touchStart", map_.in_window(at))
    touch(page, "touchMove", map_.in_window(at + torch.tensor([20, 0])))
    touch(page, "touchCancel")
    moved = map_.cross()
    map_.hover(at + 40)
    map_.hover(at)
    assert_at(map_, moved, within=0.1)


def test_keys_move_z_and_choose_the_nearest_image(map_):
    page, here = map_.page, find(map_.page, "#cross")
    x, y = map_.cross()
    step = map_.side / 50
    here.send_keys(Keys.ARROW_RIGHT * 3 + Keys.ARROW_UP * 2)
    assert_at(map_, (x + 3 * step, y - 2 * step))
    here.send_keys(Keys.ARROW_LEFT + Keys.ARROW_DOWN)
    assert_at(map_, (x + 2 * step, y - step))
    z = (z_of(page) - map_.origin) @ map_.directions.T
    nearest = (map_.points - z).norm(dim=1).argmin().item()
    here.send_keys(Keys.ENTER)
    assert page.execute_script("return state.image.index") == nearest
    assert source(page) == "the posterior mean"


def test_other_keys_are_left_to_the_browser(map_):
    before = z_of(map_.page)
    script = """return !document.getElementById("cross").dispatchEvent(new KeyboardEvent(
        "keydown", { bubbles: true, cancelable: true, ...arguments[0] }))"""
    taken = {
        name: map_.page.execute_script(script, {"key": key, **modifier})
        for name, key, modifier in [
            ("a letter", "a", {}),
            ("Tab", "Tab", {}),
            ("Back", "ArrowLeft", {"altKey": True}),
            ("Control", "ArrowUp", {"ctrlKey": True}),
            ("Command", "ArrowLeft", {"metaKey": True}),
        ]
    }
    assert not any(taken.values())
    assert z_of(map_.page).equal(before)
    assert map_.page.execute_script(script, {"key": "ArrowLeft"})  # The page does not scroll.


@pytest.fixture
def line_ends(map_, model, images):
    """The posterior means of the images 5 and 95, the ends A and B of the line."""
    for i, end in [(5, "a"), (95, "b")]:
        choose(map_.page, i)
        press(map_.page, f"take-{end}")
    return model.enc.encode(images.subset_bits[[5, 95]])[0]


def test_the_slider_interpolates_from_a_to_b(map_, line_ends, images):
    page, slider = map_.page, find(map_.page, "#share")
    a, b = line_ends
    keys = [(Keys.END, 1), (Keys.HOME, 0), (Keys.ARROW_RIGHT * 30, 0.3), (Keys.ARROW_LEFT, 0.29)]
    for key, share in keys:
        slider.send_keys(key)
        torch.testing.assert_close(z_of(page), torch.lerp(a, b, share), rtol=1e-4, atol=1e-4)
        assert source(page) == f"{round(100 * share)}% of the way from A to B"
    for i, end in (5, "a"), (95, "b"):
        row = page.execute_script(f"return content.indices[{i}]")
        assert ink(page, end).equal(images.test[row].long())
        name = f"Image {end.upper()}: test image {row}, labelled {images.test_labels[row]}"
        assert find(page, f"#{end}").get_attribute("ariaLabel") == name


def test_a_walk_plays_until_b_or_until_something_else_moves_z(map_, line_ends):
    page, button = map_.page, find(map_.page, "#play")
    page.execute_script("interpolate(0.9)")
    press(page, "play")
    wait_for(lambda: source(page) == "100% of the way from A to B")
    torch.testing.assert_close(z_of(page), line_ends[1], rtol=1e-4, atol=1e-4)
    assert button.text == "Play"
    # At B, the walk begins again at A.
    press(page, "play")
    wait_for(lambda: 0 < float(find(page, "#share").get_attribute("value")) < 1)
    press(page, "to-origin")
    assert button.text == "Play" and source(page) == "the origin"


def test_dragging_along_the_line_interpolates_and_stops_at_its_ends(map_, line_ends):
    page, slider = map_.page, find(map_.page, "#share")
    (a, b), start, end = line_ends, map_.places[5], map_.places[95]
    aside = torch.tensor([end[1] - start[1], start[0] - end[0]]) / (end - start).norm()
    for to, share in (0.5, 0.5), (0.2, 0.2), (1.2, 1), (-0.1, 0):
        grip = torch.lerp(start, end, torch.tensor(0.9)) + 4 * aside
        map_.mouse(grip, torch.lerp(start, end, torch.tensor(to)) + 30 * aside)
        value = float(slider.get_attribute("value"))
        assert value == pytest.approx(share, abs=0.02)
        exact = (((z_of(page) - a) @ (b - a)) / (b - a).square().sum()).item()
        torch.testing.assert_close(z_of(page), torch.lerp(a, b, exact), rtol=1e-4, atol=1e-4)
        assert exact == pytest.approx(share, abs=0.01 if share in (0.2, 0.5) else 1e-4)
        assert source(page).endswith("% of the way from A to B")
