"""What the tests of the explorer's page share: one browser, one set of images and one page."""

import pytest
from browsing import emulate, open_browser, requested
from drawn import lively, numbered_images

from codebase.pictures import explorer


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def images():
    return numbered_images()


@pytest.fixture(scope="session")
def model():
    return lively(10)


@pytest.fixture(scope="session")
def title():
    return "model=vae_z=10_lr=0.002_lr_schedule=linear</script><script>alert('&amp;')</script>"


@pytest.fixture(scope="session")
def path(model, images, title, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.write(model, images, title, path)
    return path


@pytest.fixture
def open_page(browser):
    """Open a page, and find at the end that it said nothing and asked no network for anything."""
    opened = []

    def open_page(path, width=1280, height=900, scheme="light", density=1):
        emulate(browser, width, height, scheme, density)
        browser.get(path.as_uri())
        opened.append(path.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    assert requested(browser) <= set(opened)


@pytest.fixture
def page(open_page, path):
    return open_page(path)
