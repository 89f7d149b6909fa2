"""A real browser: opening it, reading a page in it, and using mouse, keys and touch."""

import base64
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import wait_for
from selenium import webdriver
from selenium.webdriver import ActionChains

ARGUMENTS = (
    "headless",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1280,900",
)


def open_browser(profile: Path) -> webdriver.Chrome:
    """Start Chromium with an empty profile; skip the test if it is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("there is no Chromium with its chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox does not work for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Given the path of the driver, Selenium does not download one.
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def emulate(browser, width: int, height: int, scheme: str, density: int = 1) -> None:
    """Set the size of the screen, a phone if it is narrow, and a light or dark scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def change(page, width: int, height: int, scheme: str, density: int = 1) -> None:
    """Change the screen or scheme of an open page, and wait until the page has adapted."""
    emulate(page, width, height, scheme, density)
    script = """const answer = arguments[0], dark = matchMedia("(prefers-color-scheme: dark)");
        requestAnimationFrame(() => requestAnimationFrame(() =>
          answer([innerWidth, innerHeight, devicePixelRatio, dark.matches])))"""
    expected = [width, height, density, scheme == "dark"]
    wait_for(lambda: page.execute_async_script(script) == expected)


def requested(browser) -> set[str]:
    """The addresses that pages have requested since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # The first page of the browser itself makes requests of its own.
    return {r["request"]["url"] for r in requests if not r["documentURL"].startswith("chrome:")}


def mouse(page) -> ActionChains:
    """Actions of mouse and keys without pauses."""
    return ActionChains(page, duration=0)


def find(page, selector):
    return page.find_element("css selector", selector)


def visible(page, element):
    """Scroll an element into the window, and return it."""
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    return element


def touch(page, kind, *points):
    """Start, move, end or cancel touches at points (x, y) of the window."""
    fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def seed_random(page):
    """Replace the page's random numbers by a seeded generator called mulberry32."""
    page.execute_script(
        """let state = 1;
           Math.random = () => {
             state = (state + 0x6d2b79f5) | 0;
             let t = Math.imul(state ^ (state >>> 15), 1 | state);
             t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
             return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
           };"""
    )


def values(page, script):
    """The numbers of an array in the page, as a tensor."""
    return torch.tensor(page.execute_script(f"return Array.from({script})"), dtype=torch.float32)


def z_of(page):
    """The z of the page."""
    return values(page, "state.z")


def numbers(page):
    """KL, REC and their sum as the page shows them."""
    return [float(find(page, f"#{name}").text) for name in ("KL", "REC", "sum")]


def source(page):
    """The source of z that the page names."""
    return find(page, "#source").text.removeprefix("z is ").removesuffix(".")


def choose(page, i):
    """Choose the i-th test image of the gallery."""
    visible(page, find(page, f"#gallery label:nth-child({i + 1})")).click()


def press(page, *names):
    """Press buttons by their ids."""
    for name in names:
        visible(page, find(page, f"#{name}")).click()


def floats(text, kind="<f4"):
    """Decode numbers that the page holds as text; torch.tensor makes a writable copy."""
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def ink(page, canvas):
    """The 784 values of a canvas of 28 x 28, by its id, from 0 to 255."""
    script = """const canvas = document.querySelector("#" + arguments[0]);
        const copy = new OffscreenCanvas(28, 28).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        return Array.from(copy.getImageData(0, 0, 28, 28).data)"""
    return torch.tensor(page.execute_script(script, canvas)[3::4])


def contrast(*colours):
    """The contrast ratio of two colours like "rgb(1, 2, 3)", by WCAG 2.2."""

    def luminance(colour):
        shares = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)
