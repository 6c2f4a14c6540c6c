"""The built book, at the smoke profile: its pages in a browser that has no network."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest

from wcka.book import builder, checkout, claims, diff, execution, parameters

CHROMIUM = next((path for path in map(shutil.which, builder.BROWSERS) if path), None)
DRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium, or no chromedriver: cannot look at the pages")


@pytest.fixture(scope="module")
def site(smoke):
    """Folder of the html, with a PDF where there is a browser."""
    for path in checkout.chapters():
        smoke.start(path)
    for path in checkout.chapters():
        smoke(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "BUILD", smoke.folder)
        return builder.build("smoke", pdf=bool(CHROMIUM)).parent


@pytest.fixture(scope="module")
def found(smoke):
    """Claims of each chapter."""
    return {path.stem: diff.claims(nbformat.read(smoke(path), 4)) for path in checkout.chapters()}


# ------------------------------------------------------------------------------- the scorecard


def test_the_scorecard_has_every_claim_of_every_chapter_and_no_other(site, found):
    page = (site / "book" / "scorecard.html").read_text()
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>.*?chapter (\d+)</a>", page)
    assert len(rows) == sum(map(len, found.values()))
    for stem, some in found.items():
        for claim in some:
            assert any(int(stem[:2]) == int(row[3]) and claim.statement == unescape(row[1])
                       for row in rows)


def test_the_scorecard_covers_every_part_and_figure_of_the_paper(found):
    places = {place.strip() for some in found.values() for claim in some
              for place in claim.where.split(",")}
    assert {claims.part(claim.where) for some in found.values() for claim in some} == {
        *claims.PARTS}
    for wanted in ("abstract", "1", "2.1.2", "2.3", "3.1", "3.2", "3.3", "4", "fig. 1a", "fig. 1b",
                   "fig. 1c", "fig. 3", "fig. 4", "fig. 5"):  # figure 2 is a diagram
        assert wanted in places, wanted


def test_no_claim_is_typed_on_the_page():
    source = (checkout.ROOT / "book" / "scorecard.md").read_text()
    assert "{include} _scorecard.txt" in source and "|" not in source
    assert not re.search(r"\d\.\d", source)


def test_a_claim_belongs_to_a_place_of_the_paper():
    assert claims.part("3.1, fig. 1a") == claims.part("fig. 5") == "3.1 Calibration"
    assert claims.part("2.1.2") == "2 Methods" and claims.part("beyond, as 3.2") == claims.BEYOND
    for place in ("", "5", "fig. 6", "Fig. 1", "section 3"):
        with pytest.raises(ValueError, match="wanted abstract"):
            claims.part(place)


def test_links_and_launch_buttons_come_with_the_address(monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/wcka")
    config = builder._config()
    assert config["repository"]["url"] == "https://github.com/someone/wcka"
    assert {"binderhub_url", "colab_url"} < set(config["launch_buttons"])
    path = tmp_path / "07-x.py"
    path.write_text("# %%\n1\n")
    first = nbformat.read(execution.write_pair(path), 4).cells[0]
    assert "git+https://github.com/someone/wcka" in first.source
    monkeypatch.delenv("GITHUB_REPOSITORY")
    monkeypatch.setattr(execution, "ROOT", tmp_path)  # no repository
    assert checkout.repository() == ""
    assert len(nbformat.read(execution.write_pair(path), 4).cells) == 1


# ------------------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that can reach no host, and records what it asks for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def resized(browser, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})


def settled(browser, script, seconds=30):
    """Wait until a script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda driver: driver.execute_script(script))


def opened(browser, page):
    """Open a page; its mathematics is typeset, its figures are there, it asked no host."""
    browser.get_log("performance")
    resized(browser, 1300)
    browser.get(page.as_uri())
    if "class=\"math" in page.read_text():
        settled(browser, "return document.querySelectorAll('mjx-container').length > 0")
        assert not browser.execute_script("return document.querySelectorAll('mjx-merror').length")
    asked = [message["params"]["request"]["url"] for entry in browser.get_log("performance")
             if (message := json.loads(entry["message"])["message"])["method"]
             == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    images = browser.execute_script(
        "return [...document.images].map(i => [i.src, i.complete && i.naturalWidth, i.alt])")
    assert all(width and alt for _, width, alt in images), images
    return len(images)


@in_browser
@pytest.mark.parametrize("page", builder.pages())
def test_pages_read_from_a_file_without_a_network_at_any_width(site, browser, page):
    opened(browser, site / f"{page}.html")
    for width in (1300, 390):
        resized(browser, width)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{page} is {wide} wide at {width}"


@in_browser
def test_the_dark_page_is_dark_and_its_text_light(site, browser):
    resized(browser, 1300)
    browser.get((site / "book" / "scorecard.html").as_uri())
    lightness = {}
    for mode in ("light", "dark"):
        browser.execute_script(f"document.documentElement.dataset.theme = '{mode}'")
        lightness[mode] = browser.execute_script("""
            const light = (e, p) => getComputedStyle(e)[p].match(/[\\d.]+/g).slice(0, 3)
                .reduce((a, b) => a + Number(b), 0) / 765;
            return [light(document.body, 'backgroundColor'),
                    light(document.querySelector('p'), 'color'),
                    light(document.querySelector('table.claims td'), 'color')]""")
    assert lightness["light"][0] > 0.9 > 0.5 > max(lightness["light"][1:])
    assert lightness["dark"][0] < 0.3 < 0.6 < min(lightness["dark"][1:])


@in_browser
def test_search_finds_the_word(site, browser):
    browser.get((site / "search.html").as_uri() + "?q=intertwiner")
    settled(browser, "return document.querySelectorAll('#search-results li').length")
    titles = browser.execute_script(
        "return [...document.querySelectorAll('#search-results li a')].map(a => a.textContent)")
    assert any("Theory" in title or "Glossary" in title for title in titles), titles


@in_browser
def test_the_pdf_is_of_a_page_with_every_figure_and_the_landing_page_links_it(site, browser):
    whole = site.parent / "jupyter-book" / "_build" / "singlehtml" / "whole.html"
    alone = sum(path.read_text().count("<img ") for path in site.glob("notebooks/*.html"))
    assert opened(browser, whole) >= alone > 30
    style = "return getComputedStyle(document.querySelector('.bd-article h2')).fontFamily"
    assert "sans-serif" in browser.execute_script(style)  # it has its style sheets
    pdf = site / "wcka.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 500_000
    assert 'href="../wcka.pdf"' in (site / "book" / "index.html").read_text()


# ------------------------------------------------------------------------------- on every page


@pytest.mark.parametrize("path", checkout.chapters(), ids=lambda p: p.stem)
def test_chapters_have_objectives_takeaways_numbered_figures_and_what_ran(site, path):
    page = (site / "notebooks" / f"{path.stem}.html").read_text()
    text = re.sub(r"</?span[^>]*>", "", page)
    assert "After this chapter you can" in page and f'id="{claims.ANCHOR}"' in page
    for heading in ("To take away", "What ran"):
        assert re.search(rf"<h2>(<span[^>]*>[^<]*</span>)?{heading}", page), heading
    assert f"python -m wcka run {path.stem[:2]}" in text
    assert re.search(rf'href="[^"]*/{path.name}"', page)
    for parameter in parameters.read_parameters(path).values():
        assert f"<code>{parameter.name}: " in page, parameter.name
    figures = re.findall(r'<figure.*?</figure>', page, re.S)
    assert all("caption-number" in figure for figure in figures)


def test_bibliography_has_links_and_every_entry_is_used():
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n(?=@|\Z)",
                         (checkout.ROOT / "book" / "references.bib").read_text() + "\n", re.S)
    text = "".join(path.read_text() for folder in ("book", "notebooks")
                   for path in Path(checkout.ROOT / folder).glob("*.[mp][dy]"))
    for name, body in entries:
        assert "url = " in body or "doi = " in body, name
        assert name in text, name
