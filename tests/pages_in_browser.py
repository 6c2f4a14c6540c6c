"""A headless Chromium over the built pages, which can reach no host."""

import shutil

import pytest

from wcka.book import builder

CHROMIUM = next((path for path in map(shutil.which, builder.BROWSERS) if path), None)
DRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no Chromium, or no chromedriver: cannot look at the pages")


def driver():
    """Return a browser that records what it asks for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu",
                     "--disable-dev-shm-usage", "--disable-background-networking",
                     "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(argument)
    logs = {"performance": "ALL", "browser": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


def resized(browser, width):
    """Set the width of the page, as on a phone if it is narrow."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})


def settled(browser, script, seconds=30):
    """Wait until a script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, seconds)
    return wait.until(lambda driver: driver.execute_script(script))
