"""Fixtures of all tests of the explorer page: a browser, images, a model and the page open."""

import pytest
from browsing import emulate, open_browser, requested
from drawn import numbered_images, random_model

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
    return random_model(10)


@pytest.fixture(scope="session")
def title():
    return "z = 10, run 0</script><script>alert('&amp;')</script>"


@pytest.fixture(scope="session")
def path(model, images, title, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    explorer.write(model, images, title, path)
    return path


@pytest.fixture
def open_page(browser):
    """Open a page, and check at the end that it logged nothing and requested nothing else."""
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
