"""A real browser, and what a page in it shows."""

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
    """Start Chromium with an empty profile; without one that is installed, the test is skipped."""
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
    # With the driver's path given, Selenium looks for none and downloads none.
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def emulate(browser, width: int, height: int, scheme: str, density: int = 1) -> None:
    """Take a screen of that size, a phone's if it is narrow, and a light or dark scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def change(page, width: int, height: int, scheme: str, density: int = 1) -> None:
    """Change screen or scheme of a page that is open, and wait until it has drawn itself anew."""
    emulate(page, width, height, scheme, density)
    script = """const answer = arguments[0], dark = matchMedia("(prefers-color-scheme: dark)");
        requestAnimationFrame(() => requestAnimationFrame(() =>
          answer([innerWidth, innerHeight, devicePixelRatio, dark.matches])))"""
    expected = [width, height, density, scheme == "dark"]
    wait_for(lambda: page.execute_async_script(script) == expected)


def requested(browser) -> set[str]:
    """What the browser's pages have asked for since this was called last."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # Not what the browser's own first page asks for.
    return {r["request"]["url"] for r in requests if not r["documentURL"].startswith("chrome:")}


def mouse(page) -> ActionChains:
    """What mouse and keys do, at once."""
    return ActionChains(page, duration=0)


def find(page, selector):
    return page.find_element("css selector", selector)


def visible(page, element):
    """Bring an element of the page into the window, and give it."""
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    return element


def touch(page, kind, *points):
    """Have fingers start, move, end or be cancelled, at points (x, y) of the window."""
    fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def seed_random(page):
    """Have the page draw the same random numbers at each time, of a generator called mulberry32."""
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
    """Numbers of the page, as PyTorch has them."""
    return torch.tensor(page.execute_script(f"return Array.from({script})"), dtype=torch.float32)


def place(page):
    """The z of the page."""
    return values(page, "state.z")


def bound(page):
    """KL, REC and NELBO as the page shows them."""
    return [float(find(page, f"#{name}").text) for name in ("KL", "REC", "NELBO")]


def source(page):
    """Where z comes from, as the page says it."""
    return find(page, "#source").text.removeprefix("z is ").removesuffix(".")


def choose(page, i):
    """Choose the i-th test image of the gallery."""
    visible(page, find(page, f"#gallery label:nth-child({i + 1})")).click()


def press(page, *names):
    """Press buttons by their ids."""
    for name in names:
        visible(page, find(page, f"#{name}")).click()


def floats(text, kind="<f4"):
    """The numbers that the page holds as text; torch.tensor makes a copy that may be written."""
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
