"""The built book at the smoke profile, and a browser, for all tests of the pages."""

import pytest
from filelock import FileLock
from pages_in_browser import CHROMIUM, driver

from wcka.book import builder, checkout


@pytest.fixture(scope="session")
def site(smoke):
    """Folder of the html, with a PDF where there is a browser.

    All workers of pytest-xdist share it: whoever wants it first builds it.
    """
    for path in checkout.chapters():
        smoke.start(path)
    for path in checkout.chapters():
        smoke(path)
    with FileLock(smoke.folder / "site.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "BUILD", smoke.folder)
        index = smoke.folder / "html" / "index.html"
        if not index.exists():
            index = builder.build("smoke", pdf=bool(CHROMIUM))
    return index.parent


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium that can reach no host, and records what it asks for."""
    chromium = driver()
    yield chromium
    chromium.quit()
