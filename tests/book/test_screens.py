"""The pages on a phone, a tablet and a laptop, by day and by night."""

import re
from collections import Counter

import pytest
from pages_in_browser import in_browser, resized, settled

from wcka.book import builder, checkout, claims

PHONE = 390
TABLET = 768
LAPTOP = 1280
SMALLEST_LABEL = 10  # pixels
SMALLEST_TYPE = 8  # points, of the marks of `figures.correlations`
READABLE = 4.5  # contrast of text with its ground, by level AA of the WCAG
# In a heat map pandas has black or nearly white text, of which the better has 4.08.
READABLE_ON_COLOR = 4
CHAPTERS = [f"notebooks/{path.stem}" for path in checkout.chapters()]


def shown(browser, site, page, width, mode="light"):
    """Open a page at a width, in a mode of colours."""
    resized(browser, width)
    browser.get((site / f"{page}.html").as_uri())
    browser.execute_script("""
        const still = document.createElement('style');
        still.textContent = '* { transition: none !important }';
        document.head.append(still)""")
    recolored(browser, mode)


def recolored(browser, mode):
    """Show the open page in a mode of colours."""
    browser.execute_script("""
        document.documentElement.dataset.mode = arguments[0];
        document.documentElement.dataset.theme = arguments[0]""", mode)


# -------------------------------------------------------------------------- figures


FIGURES = """
    return [...document.querySelectorAll('.bd-article figure img, .cell_output img')]
        .map(image => {
            const link = image.closest('a.image-reference');
            return {
                source: image.src,
                target: link && link.href,
                width: image.getBoundingClientRect().width,
                own: image.naturalWidth,
                styled: parseFloat(image.style.width),
                room: link && link.clientWidth,
                scrolls: link && link.scrollWidth > link.clientWidth
                    && getComputedStyle(link).overflowX == 'auto',
            }})"""


def smallest_label(site, figure):
    """Return the size in pixels of the smallest text of a figure as it is shown."""
    text = (site / "_images" / figure["source"].split("/")[-1]).read_bytes()
    if b"<svg" not in text[:2000]:
        return SMALLEST_TYPE * 4 / 3 * figure["width"] / figure["styled"]
    drawing = text.decode()
    width_in_points = float(re.search(r'viewBox="0 0 ([\d.]+) ', drawing)[1])
    # Letters are paths, 100 units high, in a group for each text.
    sizes = [100 * float(scale) for scale in re.findall(r"scale\((0\.\d+) -0", drawing)]
    return min(sizes) * figure["width"] / width_in_points if sizes else None


@in_browser
def test_figures_can_be_read_link_to_their_file_and_scroll_on_a_phone(site, browser):
    sizes_at = {PHONE: {}, TABLET: {}, LAPTOP: {}}
    for page in ["book/index", *CHAPTERS]:
        shown(browser, site, page, PHONE)
        for width, sizes in sizes_at.items():
            resized(browser, width)
            settled(browser, f"return innerWidth == {width}")
            for figure in browser.execute_script(FIGURES):
                assert figure["target"] == figure["source"], (page, width, figure)
                if width == PHONE:
                    is_wider = figure["width"] > figure["room"]
                    assert figure["scrolls"] == is_wider, (page, figure)
                size = smallest_label(site, figure)
                if size is not None:
                    sizes[page, figure["source"].split("/")[-1]] = size
    for width, sizes in sizes_at.items():
        assert len(sizes) > 20
        small = {key: size for key, size in sizes.items() if size < SMALLEST_LABEL}
        assert not small, width
        print(f"{width} pixels: smallest label {min(sizes.values()):.1f} pixels")


# --------------------------------------------------------------------------- tables


# Tables that are wider than their room, scrolled to their end. What names a row is its
# first cell, or its last two header cells.
WIDE_TABLES = """
    document.querySelectorAll('.bd-article details').forEach(d => d.open = true);
    const boxes = [...document.querySelectorAll(
        '.pst-scrollable-table-container, .cell_output .text_html')];
    return boxes.filter(box => box.scrollWidth > box.clientWidth + 1).map(box => {
        let names = [...box.querySelectorAll('tbody th:not(:has(+ th + th))')];
        if (!names.length) names = [...box.querySelectorAll('tbody td:first-child')];
        const levels = 1 + !!box.querySelector('tbody th + th')
            + !!box.querySelector('tbody th + th + th');
        names.push(...[...box.querySelectorAll('thead tr')].flatMap(
            row => [...row.cells].slice(Math.max(0, levels - 2), levels)));
        const places = () => names.map(name => name.getBoundingClientRect());
        const last = [...box.querySelectorAll('tr > :last-child')].pop();
        const before = places();
        const overlaps = names.map((name, i) => {
            const next = name.nextElementSibling;
            return name.matches('th:has(+ th)') && names.includes(next)
                ? before[i].right - next.getBoundingClientRect().left : 0;
        });
        box.scrollLeft = 10000;
        const left = box.getBoundingClientRect().left;
        return {
            levels: levels,
            // Behind a third name, the other two move to the edge and stay there.
            moved: Math.max(...places().map((place, i) => levels == 3
                ? left - place.left : Math.abs(place.left - before[i].left))),
            frozen: Math.max(...places().map(place => place.right - left))
                / box.clientWidth,
            overlap: Math.max(...overlaps),
            scrolled: box.scrollLeft,
            shadow: getComputedStyle(box).backgroundAttachment,
            lastEnds: last.getBoundingClientRect().right
                - box.getBoundingClientRect().right,
        }})"""
# Of the width of a phone, what names take: the other columns have the rest.
MOST_FROZEN = 0.6


@in_browser
def test_wide_tables_show_that_they_go_on_and_keep_their_names(site, browser):
    tables = []
    for page in builder.pages():
        shown(browser, site, page, PHONE)
        for table in browser.execute_script(WIDE_TABLES):
            tables.append(table)
            assert table["scrolled"] > 0, page
            assert table["moved"] < 2, page
            assert table["overlap"] < 2, page
            assert table["frozen"] < MOST_FROZEN, (page, table)
            assert table["lastEnds"] < 2, page
            assert table["shadow"] == "local, local, scroll, scroll", page
    assert len(tables) > 3
    assert {table["levels"] for table in tables} == {1, 2, 3}


# Lightest and darkest of what a table shows, by the WCAG's relative luminance
CONTRASTS = """
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const luminance = color => numbers(color).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        const color = getComputedStyle(element).backgroundColor;
        const alpha = numbers(color)[3];
        return alpha === undefined || alpha > 0.5 || !element.parentElement
            ? color : ground(element.parentElement);
    };
    const cells = '.bd-article table :is(td, th, caption, td *, th *)';
    return [...document.querySelectorAll(cells)]
        .filter(cell => cell.textContent.trim() && cell.checkVisibility()
            && !cell.closest('mjx-container'))
        .map(cell => {
            const text = luminance(getComputedStyle(cell).color);
            const paper = luminance(ground(cell));
            const style = getComputedStyle(cell.closest('td, th, caption'));
            return {
                text: cell.textContent.trim().slice(0, 40),
                contrast: (Math.max(text, paper) + 0.05)
                    / (Math.min(text, paper) + 0.05),
                paper: paper,
                gradient: !!cell.closest('td')
                    && numbers(style.backgroundColor)[3] === undefined,
            }})"""


@in_browser
def test_tables_have_the_colours_of_the_page_and_can_be_read(site, browser):
    n_cells = Counter()
    for page in builder.pages():
        shown(browser, site, page, LAPTOP)
        for mode in ("light", "dark"):
            recolored(browser, mode)
            for cell in browser.execute_script(CONTRASTS):
                n_cells[mode] += 1
                where = (page, mode, cell)
                if cell["gradient"]:
                    assert cell["contrast"] >= READABLE_ON_COLOR, where
                else:
                    assert cell["contrast"] >= READABLE, where
                    assert (cell["paper"] < 0.1) == (mode == "dark"), where
    assert min(n_cells["light"], n_cells["dark"]) > 500


# -------------------------------------------------------------------- the scorecard


ROWS = """
    return [...document.querySelectorAll('table.claims tbody tr')].map(row => ({
        cells: [...row.cells].map(cell => cell.checkVisibility()),
        top: row.cells[0].getBoundingClientRect().top,
        verdict: row.cells[0].innerText.trim(),
        color: getComputedStyle(row.querySelector('.verdict')).color,
        next: row.cells[1].getBoundingClientRect().top,
        unfold: row.querySelector('details').checkVisibility(),
    }))"""


@in_browser
@pytest.mark.parametrize("page", ["book/scorecard", "notebooks/02-calibration"])
def test_claims_on_a_phone_lead_with_the_verdict_and_unfold(site, browser, page):
    shown(browser, site, page, PHONE)
    rows = browser.execute_script(ROWS)
    assert rows
    for row in rows:
        assert row["cells"][:2] == [True, True] and not any(row["cells"][2:])
        assert row["top"] < row["next"] and row["unfold"]
    browser.execute_script("document.querySelector('table.claims summary').click()")
    first, *others = browser.execute_script(ROWS)
    assert all(first["cells"]) and len(first["cells"]) > 3
    for row in others:
        assert not any(row["cells"][2:])


@in_browser
@pytest.mark.parametrize("width", [TABLET, LAPTOP])
def test_claims_on_a_wide_screen_are_a_table(site, browser, width):
    shown(browser, site, "book/scorecard", width)
    for row in browser.execute_script(ROWS):
        assert all(row["cells"]) and not row["unfold"]
        assert row["top"] == row["next"]


@in_browser
def test_each_verdict_has_a_colour(site, browser):
    shown(browser, site, "book/scorecard", PHONE)
    colors = browser.execute_script("""
        return arguments[0].map(name => {
            const mark = document.createElement('span');
            mark.className = 'verdict ' + name;
            document.querySelector('table.claims td').append(mark);
            return getComputedStyle(mark).color})""",
        [name.replace(" ", "-") for name in claims.VERDICTS])
    assert len(set(colors)) == len(claims.VERDICTS)
    for row in browser.execute_script(ROWS):
        name = row["verdict"].split("\xa0")[1]
        assert row["color"] == colors[list(claims.VERDICTS).index(name)]


# ------------------------------------------------------------------------ the code


CODE = """
    document.querySelectorAll('.bd-article details').forEach(d => d.open = true);
    return [...document.querySelectorAll('.cell_input pre')].map(
        pre => [pre.scrollWidth - pre.clientWidth, pre.textContent])"""


@in_browser
@pytest.mark.parametrize("page", CHAPTERS)
def test_code_fits_a_laptop(site, browser, page):
    shown(browser, site, page, LAPTOP)
    blocks = browser.execute_script(CODE)
    assert blocks
    for too_wide, code in blocks:
        assert too_wide <= 0, code


@in_browser
def test_eighty_columns_fit_a_laptop(site, browser):
    shown(browser, site, CHAPTERS[0], LAPTOP)
    room, needed = browser.execute_script("""
        const pre = document.querySelector('.cell_input pre');
        pre.textContent = 'm'.repeat(80);
        return [pre.clientWidth, pre.scrollWidth]""")
    assert needed <= room


@in_browser
@pytest.mark.parametrize("page", CHAPTERS)
def test_parameters_fold(site, browser, page):
    shown(browser, site, page, PHONE)
    folded = """
        const cell = document.querySelector('.tag_parameters');
        return [cell.querySelector('summary').innerText,
                cell.querySelector('pre').checkVisibility(
                    {contentVisibilityAuto: true})]"""
    prompt, visible = browser.execute_script(folded)
    assert "Show the parameters" in prompt and not visible
    browser.execute_script(
        "document.querySelector('.tag_parameters summary').click()")
    prompt, visible = browser.execute_script(folded)
    assert "Hide the parameters" in prompt and visible


# -------------------------------------------------------------------- the sliders


EXPLORER = """
    const svg = document.querySelector('.wcka-explorer svg');
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll('text')].map(
        text => scale * parseFloat(getComputedStyle(text).fontSize))"""


@in_browser
@pytest.mark.parametrize("width", [PHONE, TABLET, LAPTOP])
def test_labels_beside_the_sliders_can_be_read(site, browser, width):
    shown(browser, site, "book/explore", width)
    sizes = browser.execute_script(EXPLORER)
    assert sizes and min(sizes) >= SMALLEST_LABEL


@in_browser
@pytest.mark.parametrize("name", ["depth", "width", "epoch"])
def test_sliders_take_arrow_keys_and_say_what_they_show(site, browser, name):
    shown(browser, site, "book/explore", LAPTOP)
    slider = browser.find_element("id", f"explorer-{name}")
    told = slider.get_attribute("aria-valuetext")
    read_out = browser.find_element("css selector", ".wcka-explorer .read-out")
    assert re.fullmatch(r"(\w[^:]*: (\d\.\d{3}|no value)(; )?)+", read_out.text)
    slider.send_keys("\ue012")  # the left arrow
    assert slider.get_attribute("aria-valuetext") != told
