"""The built book at the smoke profile, its pages in a browser without a network."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest
from pages_in_browser import in_browser, resized, settled

from wcka.book import (
    builder,
    checkout,
    claims,
    diff,
    execution,
    parameters,
    records,
)


@pytest.fixture(scope="module")
def claims_of_chapters(smoke):
    """Claims of the chapters at the smoke profile, by their stems."""
    claims_of = {}
    for path in checkout.chapters():
        claims_of[path.stem] = diff.claims(nbformat.read(smoke(path), 4))
    return claims_of


# --------------------------------------------------------------------- the scorecard


ROW = (
    r"<tr><td><span[^>]*>.*?</span></td><td>(.*?)<details.*?</details></td>"
    r"<td[^>]*>(.*?)</td><td[^>]*>(.*?)</td>.*?chapter (\d+)</a>")


def test_the_scorecard_has_every_claim_of_every_chapter_and_no_other(
        site, claims_of_chapters):
    page = (site / "book" / "scorecard.html").read_text()
    on_page = []
    for statement, finding, where, chapter in re.findall(ROW, page):
        texts = [unescape(text) for text in (where, statement, finding)]
        on_page.append((*texts, int(chapter)))
    expected = []
    for stem, chapter_claims in claims_of_chapters.items():
        on_record = {claim.key: claim for claim in records.judged(stem[:2])}
        for claim in chapter_claims:
            shown = on_record.get(claim.key, claim)
            expected.append((*shown[:3], int(stem[:2])))
    assert sorted(on_page) == sorted(expected)


def test_the_scorecard_covers_every_part_and_figure_of_the_paper(claims_of_chapters):
    parts = set()
    places = set()
    for chapter_claims in claims_of_chapters.values():
        for claim in chapter_claims:
            parts.add(claims.part(claim.where))
            places |= {place.strip() for place in claim.where.split(",")}
    assert parts == set(claims.PARTS)
    expected = {"abstract", "1", "2.2", "2.3", "2.5", "3.1", "3.2", "3.3", "4",
                "figure 1a", "figure 1b", "figure 1c", "figure 5"}
    assert expected <= places  # figure 2 is a diagram


CLAIMS = {
    "02-calibration": [
        claims.Claim("3.1, fig. 1a", "close to 0", "0.02 < 0.1", "holds"),
        claims.Claim("abstract", "well-calibrated", "4 of 4", "partly"),
        claims.Claim("beyond, as 3.1", "close to 0", "0.03", "fails"),
    ],
    "11-more": [claims.Claim("fig. 5", "fog is similar", "0.50", "cannot be told")],
}


def test_the_scorecard_is_in_the_order_of_the_paper_and_links_the_chapters():
    text = builder.scorecard(CLAIMS)
    headings = re.findall("^## (.*)$", text, re.M)
    assert headings == ["Abstract", "3.1 Calibration", "Beyond the paper"]
    rows = re.findall(ROW, text)
    assert rows == [
        ("well-calibrated", "4 of 4", "abstract", "2"),
        ("close to 0", "0.02 &lt; 0.1", "3.1, fig. 1a", "2"),
        ("fog is similar", "0.50", "fig. 5", "11"),
        ("close to 0", "0.03", "beyond, as 3.1", "2"),
    ]
    links = re.findall('href="(.*?)"', text)
    first = f"../notebooks/02-calibration.html#{claims.ANCHOR}"
    assert links == [first, first, f"../notebooks/11-more.html#{claims.ANCHOR}", first]


def test_the_tally_counts_claims_by_verdict_and_those_beyond_the_paper_apart():
    of_paper = ("Of 3 claims of the paper, 1 holds, 1 holds in part and 1 cannot be "
                "told from these runs.")
    beyond = "The one statement beyond the paper that was tested fails."
    assert builder.tally(CLAIMS) == f"{of_paper} {beyond}"
    assert "beyond" not in builder.tally({"11-more": CLAIMS["11-more"]})


# Words of empirical sentences: measures, verdicts and quantities
EMPIRICAL = re.compile(
    r"\b(w?d?cka|procrustes"
    r"|holds?|held|fail\w*|partly|confirm\w*|refut\w*|reproduc\w*|replicat\w*"
    r"|contradict\w*|support\w*|agree\w*|true|false|right|wrong"
    r"|\d[\d.,]*|all|most|half|majority|many|few|none|two|three|four|five|six"
    r"|seven|eight|nine|ten|eleven|twelve|dozens?)\b", re.I)


def empirical_words(page):
    """Return the words of a MyST page that only a result would use.

    It passes over what the builder includes, the level of intervals and tests, and the
    terms of the definition list that explains the verdicts.
    """
    prose = re.sub(r"^```\{include\} _\w+\.txt\n```$", "", page, flags=re.M)
    for verdict, symbol in claims.VERDICTS.items():
        prose = prose.replace(f"{symbol}&nbsp;{verdict}\n: ", "")
    return EMPIRICAL.findall(re.sub(r"\b(95|5) %", "", prose))


def test_no_claim_is_typed_on_the_page():
    page = (checkout.ROOT / "book" / "scorecard.md").read_text()
    assert "```{include} _tally.txt\n```" in page
    assert "```{include} _scorecard.txt\n```" in page
    assert empirical_words(page) == []


@pytest.mark.parametrize("sentence", [
    "wCKA is well calibrated.",
    "Most claims of the paper can be trusted.",
    "The paper's claims hold.",
    "Twelve claims could not be told.",
    "Chapter 2 found 0.93.",
    "We confirmed what the paper says.",
    "| 3.1 | it is so | 0.9 | holds |",
    "- ●&nbsp;holds",
])
def test_a_typed_claim_would_be_noticed(sentence):
    page = (checkout.ROOT / "book" / "scorecard.md").read_text()
    heading, body = page.split("\n\n", 1)
    assert empirical_words(f"{heading}\n\n{sentence}\n\n{body}")
    assert empirical_words(f"{page}\n{sentence}\n")


def test_a_claim_belongs_to_a_place_of_the_paper():
    sections = {"fig. 1a": "3.1", "fig. 1c": "3.1", "fig. 2": "3.2", "fig. 3": "3.2",
                "fig. 4": "3.3", "fig. 5": "3.1", "3.1, fig. 3": "3.1"}
    for place, section in sections.items():
        assert claims.part(place).split()[0] == section, place
    assert claims.part("2.1.2") == "2 Methods"
    assert claims.part("beyond, as 3.2") == claims.BEYOND
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
    monkeypatch.setattr(checkout, "ROOT", tmp_path)  # no repository
    assert checkout.repository() == ""
    assert len(nbformat.read(execution.write_pair(path), 4).cells) == 1


# ------------------------------------------------------- the place of the built book


@pytest.fixture
def built(tmp_path):
    """A built book, and beside it the place that it is meant for."""
    folder = tmp_path / "jupyter-book" / "html"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("new")
    return folder, tmp_path / "html"


def old_book(folder):
    (folder / "book").mkdir(parents=True)
    (folder / "index.html").write_text("old")
    (folder / "book" / "left-over.html").write_text("old")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_book_takes_the_place_of_none(built):
    builder._put_in_place(*built)
    assert (built[1] / "index.html").read_text() == "new"


def test_a_book_takes_the_place_of_an_old_one(built):
    old_book(built[1])
    builder._put_in_place(*built)
    assert names_in(built[1]) == ["index.html"]
    assert (built[1] / "index.html").read_text() == "new"
    assert names_in(built[1].parent) == ["html", "jupyter-book"]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_book_goes_to_where_a_link_leads(built, tmp_path, dangling):
    served = tmp_path / "server" / "served"
    served.parent.mkdir()
    if not dangling:
        old_book(served)
    built[1].symlink_to(served)
    builder._put_in_place(*built)
    assert built[1].is_symlink()
    assert names_in(served) == ["index.html"]
    assert (served / "index.html").read_text() == "new"
    assert names_in(served.parent) == ["served"]


def test_an_old_book_that_cannot_be_removed_is_said(built, monkeypatch):
    def refuse(path):
        raise PermissionError(f"not permitted: {path}")

    old_book(built[1])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(OSError, match=r"is built: .*html; but .*not permitted"):
            builder._put_in_place(*built)
    assert names_in(built[1]) == ["index.html"]
    built[0].mkdir()
    (built[0] / "index.html").write_text("newer")
    builder._put_in_place(*built)  # it can be removed now
    assert (built[1] / "index.html").read_text() == "newer"
    assert names_in(built[1].parent) == ["html", "jupyter-book"]


def test_a_book_that_cannot_be_moved_leaves_the_old_one(built, monkeypatch):
    """The first step fails, or the second, or the third."""
    rename = Path.rename

    def move_in_part(source, target):
        shutil.copytree(source, target)
        raise OSError("no space left on device")

    def refuse_from(number):
        calls = []

        def rename_or_refuse(path, target):
            calls.append(path)
            if len(calls) == number:
                raise OSError("no space left on device")
            return rename(path, target)

        return rename_or_refuse

    old_book(built[1])
    copy = built[0].with_name("copy")
    shutil.copytree(built[0], copy)
    failures = [
        (shutil, "move", move_in_part),
        (Path, "rename", refuse_from(1)),
        (Path, "rename", refuse_from(2)),
    ]
    for module, name, failing in failures:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            with pytest.raises(OSError, match="no space"):
                builder._put_in_place(*built)
        assert (built[1] / "index.html").read_text() == "old"
        assert (built[1] / "book" / "left-over.html").exists()
        assert names_in(built[1].parent) == ["html", "jupyter-book"]
        shutil.rmtree(built[0], ignore_errors=True)
        shutil.copytree(copy, built[0])


# ------------------------------------------------------------ jupyter-book and browser


def test_a_failed_build_says_why(tmp_path, monkeypatch):
    """Warnings count; where there are none, the last line of the log tells most."""
    monkeypatch.setattr(checkout, "BUILD", tmp_path)
    outcomes = {
        "print('a WARNING: x'); print('done'); sys.exit(1)": "a WARNING: x",
        "print('one'); raise OSError(28, 'No space left on device')": "No space left",
    }
    for code, reason in outcomes.items():
        monkeypatch.setattr(builder, "_JUPYTER_BOOK", f"import sys; {code}")
        with pytest.raises(RuntimeError, match=f"not built\n  .*{reason}.*\n  log: "):
            builder._sphinx(tmp_path, "html")


BROWSERS_THAT_FAIL = {
    "echo out of memory >&2; exit 3": "exit status 3.* out of memory",
    "exit 0": "no whole PDF",
    "for a in $*; do case $a in --print-to-pdf=*) "
    "printf %%PDF-1.4 > ${a#*=};; esac; done": "no whole PDF",
}


@pytest.mark.parametrize("script", BROWSERS_THAT_FAIL)
def test_a_browser_that_fails_is_said(tmp_path, monkeypatch, script):
    path = tmp_path / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(builder, "browser", lambda: str(path))
    with pytest.raises(RuntimeError, match=f"not made: .*{BROWSERS_THAT_FAIL[script]}"):
        builder._print(tmp_path / "page.html", tmp_path / "out.pdf")


# -------------------------------------------------------------------- in the browser


def opened(browser, page):
    """Open a page and check what it shows and asks for; return its number of images."""
    browser.get_log("performance")
    resized(browser, 1280)
    browser.get(page.as_uri())
    if "class=\"math" in page.read_text():
        settled(browser, "return document.querySelectorAll('mjx-container').length > 0")
        errors = "return document.querySelectorAll('mjx-merror').length"
        assert not browser.execute_script(errors)
    asked = requested(browser)
    assert asked
    for url in asked:
        assert url.startswith(("file:", "data:", "blob:"))
    images = browser.execute_script(
        "return [...document.images].map("
        "i => [i.src, i.complete && i.naturalWidth, i.alt])")
    for address, width, alt in images:
        assert width and alt, address
    return len(images)


def requested(browser):
    """Return the addresses that the browser asked for since its log was last read."""
    addresses = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            addresses.append(message["params"]["request"]["url"])
    return addresses


@in_browser
@pytest.mark.parametrize("page", builder.pages())
def test_pages_read_from_a_file_without_a_network_at_any_width(site, browser, page):
    opened(browser, site / f"{page}.html")
    for width in (1280, 768, 390):
        resized(browser, width)
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, f"{page} is {needed} wide at {width}"


@in_browser
def test_the_dark_page_is_dark_and_its_text_light(site, browser):
    resized(browser, 1280)
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
    paper, *text = lightness["light"]
    assert paper > 0.9 > 0.5 > max(text)
    paper, *text = lightness["dark"]
    assert paper < 0.3 < 0.6 < min(text)


@in_browser
def test_search_finds_the_word(site, browser):
    browser.get((site / "search.html").as_uri() + "?q=intertwiner")
    settled(browser, "return document.querySelectorAll('#search-results li').length")
    titles = browser.execute_script(
        "return [...document.querySelectorAll('#search-results li a')]"
        ".map(a => a.textContent)")
    assert any("Theory" in title or "Glossary" in title for title in titles), titles


@in_browser
def test_the_pdf_is_of_a_page_with_every_figure_and_is_linked(site, browser):
    page = site.parent / "jupyter-book" / "_build" / "singlehtml" / "whole.html"
    figures = 0
    for path in site.glob("notebooks/*.html"):
        figures += path.read_text().count("<img ")
    assert opened(browser, page) >= figures > 30
    font = browser.execute_script(
        "return getComputedStyle(document.querySelector('.bd-article h2')).fontFamily")
    assert "sans-serif" in font  # it has its style sheets
    pdf = site / "wcka.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 500_000
    assert 'href="../wcka.pdf"' in (site / "book" / "index.html").read_text()


# --------------------------------------------------------------------- on every page


@pytest.mark.parametrize("path", checkout.chapters(), ids=lambda p: p.stem)
def test_chapters_have_their_sections_numbered_figures_and_parameters(site, path):
    page = (site / "notebooks" / f"{path.stem}.html").read_text()
    text = re.sub(r"</?span[^>]*>", "", page)
    assert "After this chapter you can" in page
    assert f'id="{claims.ANCHOR}"' in page
    for heading in ("To take away", "What ran"):
        assert re.search(rf"<h2>(<span[^>]*>[^<]*</span>)?{heading}", page), heading
    assert f"python -m wcka run {path.stem[:2]}" in text
    assert re.search(rf'href="[^"]*/{path.name}"', page)
    for parameter in parameters.read_parameters(path).values():
        assert f"<code>{parameter.name}: " in page, parameter.name
    for figure in re.findall(r"<figure.*?</figure>", page, re.S):
        assert "caption-number" in figure


def test_bibliography_has_links_and_every_entry_is_used():
    bibliography = (checkout.ROOT / "book" / "references.bib").read_text() + "\n"
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n(?=@|\Z)", bibliography, re.S)
    assert entries
    text = ""
    for path in [*Path(checkout.ROOT / "book").glob("*.md"),
                 *Path(checkout.ROOT / "notebooks").glob("*.py")]:
        text += path.read_text()
    for name, body in entries:
        assert "url = " in body or "doi = " in body, name
        assert name in text, name
