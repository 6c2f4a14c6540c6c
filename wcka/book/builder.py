"""The book: pages and executed chapters put together, and built as html and PDF."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import yaml
from filelock import FileLock, Timeout

from ..networks import sources
from . import checkout, claims, diff, execution, parameters

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def build(profile: str, pdf: bool = False) -> Path:
    """Run the chapters that changed, build the book; return the path of index.html.

    Parameters
    ----------
    profile : str
        A file of notebooks/profiles, or "quick".
    pdf : bool
        Print the whole book to wcka.pdf beside index.html as well.

    Raises
    ------
    RuntimeError
        If a chapter fails, a page is missing or has a warning, there is no browser for the PDF, or
        another process builds the book.
    """
    chosen = {path: parameters.choose(path, profile, []) for path in checkout.chapters()}
    for path, values in chosen.items():  # what is wrong or missing is said before the first starts
        parameters.vet(path, values)
    if pdf:
        browser()
    for name in {name for item in chosen.items() for name in parameters.datasets(*item)}:
        sources.fetch(name)
    checkout.BUILD.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(checkout.BUILD / ".lock", timeout=0):
            source = _source(_executed(chosen, profile), profile, pdf)
            site = _html(source)
            if pdf:
                _print(_one_page(source), site / "wcka.pdf")
            return site / "index.html"
    except Timeout:
        raise RuntimeError(f"another process builds the book in {checkout.BUILD}; wait for it"
                           ) from None


def _executed(chosen: dict[Path, dict], profile: str) -> list[Path]:
    """Run the chapters whose source, parameters or module changed."""
    outputs = []
    for path, values in chosen.items():
        output = checkout.BUILD / "chapters" / profile / f"{path.stem}.ipynb"
        if execution.is_fresh(output, execution.key_of(path, values, profile)):
            print(f"{path.stem}: unchanged", flush=True)
        else:
            print(f"{path.stem}: running ...", end=" ", flush=True)
            execution.run_chapter(path, values, profile, output)
            print(f"{nbformat.read(output, 4).metadata['wcka']['seconds']:.0f} s", flush=True)
        outputs.append(output)
    return outputs


# ------------------------------------------------------------------------------- its source


def _source(executed: list[Path], profile: str, pdf: bool) -> Path:
    """Put pages, executed chapters and what is made from them into one folder."""
    source = checkout.BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(checkout.ROOT / "book", source / "book")
    shutil.copy(checkout.ROOT / "_toc.yml", source)
    (source / "_config.yml").write_text(yaml.safe_dump(_config(), sort_keys=False))
    (source / "notebooks").mkdir()
    found, took = {}, {}
    for path in executed:
        notebook = nbformat.read(path, 4)
        execution.check_executed(notebook, path.name)
        shutil.copy(path, source / "notebooks")
        shutil.copy(checkout.NOTEBOOKS / f"{path.stem}.py", source / "notebooks")
        _extract_figures(notebook, source / "book" / "figures")
        found[path.stem] = diff.claims(notebook)
        took[path.stem] = notebook.metadata["wcka"]["seconds"]
    warning = execution.SMOKE * (profile == "smoke")
    made = {"scorecard": scorecard(found), "tally": warning + tally(found),
            "times": times(took), "pdf": _PDF * pdf}
    for name, text in made.items():
        (source / "book" / f"_{name}.txt").write_text(text + "\n")
    return source


_PDF = '<p><a href="../wcka.pdf">The whole book as one PDF</a></p>'


def _config() -> dict:
    """The configuration, with links to the repository and places to run where it is known."""
    config = yaml.safe_load((checkout.ROOT / "_config.yml").read_text())
    if address := checkout.repository():
        config["repository"] = {"url": address, "branch": "main", "path_to_book": ""}
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com"}
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
    return config


def _extract_figures(notebook, folder: Path) -> None:
    """Write a chapter's named figures to files, for the pages that are no notebooks."""
    folder.mkdir(exist_ok=True)
    for cell in notebook.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []) if name else []:
            if "image/svg+xml" in output.get("data", {}):
                (folder / f"{name}.svg").write_text(output.data["image/svg+xml"])


def tally(found: dict[str, list[claims.Claim]]) -> str:
    """One sentence: how many claims hold, and how many do not; another for what is beyond."""
    rows = [claim for some in found.values() for claim in some]
    beyond = [claim for claim in rows if claims.part(claim.where) == claims.BEYOND]
    said = [_counted([claim for claim in rows if claim not in beyond], "claims of the paper")]
    if beyond:
        said.append(_counted(beyond, "that carry them over to other networks"))
    return " ".join(said)


def _counted(rows: list[claims.Claim], what: str) -> str:
    counts = Counter(claim.verdict for claim in rows)
    words = {"holds": "hold", "partly": "hold in part", "fails": "fail",
             "cannot be told": "cannot be told from these runs"}
    parts = [f"**{counts[verdict]}** {words[verdict]}" for verdict in claims.VERDICTS]
    return f"Of {len(rows)} {what}, {', '.join(parts[:-1])} and {parts[-1]}."


def scorecard(found: dict[str, list[claims.Claim]]) -> str:
    """All claims that chapters tested, in the order of the paper, as MyST.

    Parameters
    ----------
    found : dict
        Claims of each chapter, by the stem of its file.
    """
    text, rows = [], [(chapter, claim) for chapter, some in found.items() for claim in some]
    for part in claims.PARTS:
        of_part = [(chapter, claim) for chapter, claim in rows if claims.part(claim.where) == part]
        if of_part:
            tested = [f'<a href="../notebooks/{chapter}.html#{claims.ANCHOR}">chapter '
                      f'{int(chapter[:2])}</a>' for chapter, _ in of_part]
            text += [f"## {part}", claims.table([claim for _, claim in of_part], tested)]
    return "\n\n".join(text)


def times(took: dict[str, float]) -> str:
    """What chapters took, in seconds, as MyST."""
    lines = [f"| {{doc}}`../notebooks/{chapter}` | {seconds:.0f} |"
             for chapter, seconds in took.items()]
    return "\n".join(["| chapter | seconds |", "| :--- | ---: |", *lines,
                      f"| all | {sum(took.values()):.0f} |"])


# ------------------------------------------------------------------------------- its forms


def _html(source: Path) -> Path:
    """Build the html strictly; return its folder."""
    built, site = _sphinx(source, "html"), checkout.BUILD / "html"
    if missing := [page for page in pages() if not (built / f"{page}.html").exists()]:
        raise RuntimeError(f"the book was not built: missing page {', '.join(missing)}")
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(built, site)
    return site


def pages() -> list[str]:
    """All pages of the table of contents, in order."""
    toc = yaml.safe_load((checkout.ROOT / "_toc.yml").read_text())
    return [toc["root"], *(page["file"] for part in toc["parts"] for entry in part["chapters"]
                           for page in (entry, *entry.get("sections", [])))]


def _sphinx(source: Path, builder: str) -> Path:
    """Build one form by jupyter-book; a warning is an error."""
    out, log = checkout.BUILD / "jupyter-book", checkout.BUILD / f"jupyter-book-{builder}.log"
    with log.open("w") as stream:
        done = subprocess.run(
            [Path(sys.executable).with_name("jupyter-book"), "build", source, "-W", "-n",
             "--keep-going", "--all", "--path-output", out, "--builder", builder],
            stdout=stream, stderr=subprocess.STDOUT, cwd=checkout.ROOT)
    if done.returncode:
        complaints = [line for line in log.read_text().splitlines()
                      if "WARNING" in line or "ERROR" in line]
        raise RuntimeError("the book was not built" + "".join(f"\n  {c}" for c in complaints[:20])
                           + f"\n  log: {log}")
    return out / "_build" / builder


def browser() -> str:
    """Path of a Chromium.

    Raises
    ------
    RuntimeError
        If none is installed.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise RuntimeError(f"no browser for the PDF: install one of {', '.join(BROWSERS)}")


def _one_page(source: Path) -> Path:
    """Build one page that holds the whole book; return its path."""
    built = _sphinx(source, "singlehtml")
    # Links between pages become links within the one page.
    text = re.sub(r'href="\.\./notebooks/([\w-]+)\.html[^"]*"', r'href="#document-notebooks/\1"',
                  (built / "book" / "index.html").read_text())
    page = built / "whole.html"  # Sphinx writes its paths as if the page stood here
    page.write_text(text)
    return page


def _print(page: Path, pdf: Path) -> None:
    """Print a page as the browser would."""
    subprocess.run(
        [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
         "--virtual-time-budget=60000", f"--print-to-pdf={pdf}", page.as_uri()],
        check=True, capture_output=True, timeout=600)
    if not pdf.exists():
        raise RuntimeError(f"the browser has not written {pdf}")
