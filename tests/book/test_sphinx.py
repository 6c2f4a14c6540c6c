"""The way out of jupyter-book 1: plain Sphinx builds the same pages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wcka.book import builder, checkout

# Sphinx where jupyter-book is not installed
SPHINX = """
import sys

sys.modules["jupyter_book"] = None
from sphinx.cmd.build import main

sys.exit(main(sys.argv[1:]))
"""


def run(*command, cwd):
    """Run a program; return what it printed, or fail with it."""
    process = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONUTF8": "1"})
    printed = process.stdout + process.stderr
    assert process.returncode == 0, printed[-5000:]
    return printed


def configured(source):
    """Write the conf.py of a book by jupyter-book, and take jupyter-book out of it."""
    run(sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
        "config", "sphinx", source, cwd=source)
    configuration = source / "conf.py"
    text = configuration.read_text("utf-8")
    assert "'jupyter_book', " in text
    configuration.write_text(text.replace("'jupyter_book', ", ""), "utf-8")
    (source / "_config.yml").unlink()


@pytest.fixture(scope="module")
def by_sphinx(site, tmp_path_factory):
    """Folder of the pages that Sphinx built from the source of the book."""
    folder = tmp_path_factory.mktemp("sphinx")
    source = folder / "source"
    shutil.copytree(site.parent / "source", source)
    configured(source)
    printed = run(
        sys.executable, "-c", SPHINX, "-b", "html", "-W", "-n", "--keep-going",
        source, folder / "html", cwd=checkout.ROOT)
    assert "WARNING" not in printed
    return folder / "html"


def article(page: Path) -> str:
    """Return the html of what a page says, without the theme's frame."""
    return re.search(
        r'<article class="bd-article".*?</article>', page.read_text("utf-8"), re.S)[0]


@pytest.mark.parametrize("page", builder.pages())
def test_sphinx_builds_the_same_page(site, by_sphinx, page):
    expected = article(site / f"{page}.html")
    assert article(by_sphinx / f"{page}.html") == expected
    for name in re.findall(r'<img[^>]* src="[./]*/_images/([^"]+)"', expected):
        assert (by_sphinx / "_images" / name).exists()


@pytest.mark.parametrize("name", [
    "_static/wcka.css", "mathjax/tex-mml-chtml.js", "searchindex.js", "objects.inv"])
def test_sphinx_brings_what_the_pages_need(site, by_sphinx, name):
    assert (site / name).exists()
    assert (by_sphinx / name).exists()
