"""A real browser: opening it, reading a page in it, and using its mouse."""

import base64
import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from selenium import webdriver
from torch import Tensor

ARGUMENTS = (
    *("headless", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "window-size=1280,900"),
)


def open_browser(profile: Path):
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Given the path of the driver, Selenium does not download one.
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def find(page, selector: str):
    """The first element of a CSS selector, scrolled into the window."""
    element = page.find_element("css selector", selector)
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    return element


def press(page, *selectors: str) -> None:
    for selector in selectors:
        find(page, selector).click()


def values(page, script: str, *arguments) -> Tensor:
    """The numbers of an array in the page."""
    found = page.execute_script(f"return Array.from({script})", *arguments)
    return torch.tensor(found, dtype=torch.float32)


def pixels(page, selector: str) -> Tensor:
    """The pixels of a canvas, (height, width, 4), from 0 to 1."""
    script = "return document.querySelector(arguments[0]).toDataURL()"
    _, picture = page.execute_script(script, selector).split(",")
    return torch.tensor(imread(io.BytesIO(base64.b64decode(picture))))


def mouse(page, selector: str, *places, pressed: bool = True) -> None:
    """Press the button at the first place on an element, move to the others, and release it.

    A place is a pair of shares of the element's width and height.
    """
    element = find(page, selector)
    size = torch.tensor([element.rect["width"], element.rect["height"]])
    actions = webdriver.ActionChains(page, duration=0)
    for number, place in enumerate(places):
        from_middle = (torch.as_tensor(place) - 0.5) * size
        actions.move_to_element_with_offset(element, *from_middle.round().int().tolist())
        if number == 0 and pressed:
            actions.click_and_hold()
    if pressed:
        actions.release()
    actions.perform()
