"""A real browser, and what a page in it shows."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
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


def emulate(browser, width: int, height: int, scheme: str) -> None:
    """Take a screen of that size, a phone's if it is narrow, and a light or dark scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


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


def values(page, script):
    """Numbers of the page, as PyTorch has them."""
    return torch.tensor(page.execute_script(f"return Array.from({script})"), dtype=torch.float32)


def ink(page, canvas):
    """The 784 values of a canvas of 28 x 28, from 0 to 255."""
    script = """const canvas = document.getElementById(arguments[0]);
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
