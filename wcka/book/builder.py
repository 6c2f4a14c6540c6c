"""The book: pages and executed chapters in one folder, built as html and PDF."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml
from filelock import FileLock, Timeout

from ..measures.spelling import printable
from ..networks import sources
from . import (
    checkout,
    claims,
    diff,
    execution,
    explorer,
    front,
    parameters,
    records,
    rules,
    sentences,
    worked_pages,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# How the names of folders begin that hold a book until it is removed
_OLD_BOOK = ".old-book-"
# jupyter-book in a process that ends with the one that builds the book
_JUPYTER_BOOK = """
import sys
from wcka.experiments.processes import end_with

end_with(int(sys.argv.pop(1)))
from jupyter_book.cli.main import main

sys.exit(main())
"""
_PDF_LINK = '<p><a href="../wcka.pdf">The whole book as one PDF</a></p>'


def build(profile: str, pdf: bool = False) -> Path:
    """Run the chapters that changed, build the book, and return the path of index.html.

    Parameters
    ----------
    profile : str
        A file of notebooks/profiles, or "quick".
    pdf : bool
        Print the whole book to wcka.pdf beside index.html as well.

    Raises
    ------
    RuntimeError
        If a chapter fails, a page is missing or has a warning, there is no browser for
        the PDF or it fails, or another process builds the book. The book that was there
        then is still there.

    Examples
    --------
    >>> build("quickest")
    Traceback (most recent call last):
    wcka.book.checkout.UsageError: unknown profile 'quickest'; did you mean 'quick'?
    """
    values_of = {}
    for path in checkout.chapters():
        values_of[path] = parameters.choose(path, profile, [])
    # Whatever is wrong or missing is reported before the first chapter starts.
    for path, values in values_of.items():
        parameters.vet(path, values)
    if pdf:
        browser()
    _fetch_datasets(values_of)
    checkout.BUILD.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(checkout.BUILD / ".lock", timeout=0):
            source = _source(_executed(values_of, profile), profile, pdf)
            built = _html(source)
            if pdf:
                _print(_one_page(source), built / "wcka.pdf")
            site = checkout.BUILD / "html"
            _put_in_place(built, site)
            return site / "index.html"
    except Timeout:
        raise RuntimeError(
            f"another process builds the book in {checkout.BUILD}; wait for it"
        ) from None


def _fetch_datasets(values_of: dict[Path, dict]) -> None:
    """Download the data sets that chapters will need with their parameters' values."""
    names = set()
    for path, values in values_of.items():
        names |= set(parameters.datasets(path, values))
    for name in names:
        sources.fetch(name)


def _executed(values_of: dict[Path, dict], profile: str) -> list[Path]:
    """Run the chapters whose source, parameters or modules changed."""
    outputs = []
    for path, values in values_of.items():
        output = checkout.BUILD / "chapters" / profile / f"{path.stem}.ipynb"
        if execution.is_fresh(output, execution.key_of(path, values, profile)):
            print(f"{path.stem}: unchanged", flush=True)
        else:
            print(f"{path.stem}: running ...", end=" ", flush=True)
            execution.run_chapter(path, values, profile, output)
            seconds = nbformat.read(output, 4).metadata["wcka"]["seconds"]
            print(f"{seconds:.0f} s", flush=True)
        outputs.append(output)
    return outputs


# ------------------------------------------------------------------- its source


def _source(executed: list[Path], profile: str, pdf: bool) -> Path:
    """Put pages, executed chapters and the texts about them into one folder."""
    source = checkout.BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(checkout.ROOT / "book", source / "book")
    shutil.copy(checkout.ROOT / "_toc.yml", source)
    config = yaml.safe_dump(_config(), sort_keys=False)
    (source / "_config.yml").write_text(config, "utf-8")
    (source / "notebooks").mkdir()
    claims_of = {}
    notebooks = {}
    on_record = {}
    findings_at = {}
    seconds_of = {}
    for path in executed:
        notebook = nbformat.read(path, 4)
        execution.check_executed(notebook, path.name)
        shutil.copy(checkout.NOTEBOOKS / f"{path.stem}.py", source / "notebooks")
        _extract_figures(notebook, source / "book" / "figures")
        notebooks[path.stem] = notebook
        claims_of[path.stem] = diff.claims(notebook)
        for claim in records.judged(path.stem[:2]):
            on_record[claim.key] = claim
        _add_note(notebook, records.note(claims_of[path.stem], on_record))
        nbformat.write(notebook, source / "notebooks" / path.name)
        findings_at[path.stem] = _findings_at(path.stem[:2], notebook)
        seconds_of[path.stem] = notebook.metadata["wcka"]["seconds"]
    counted = with_record(claims_of, on_record)
    evidence = front.gather(counted, on_record, notebooks)
    # Pages include these files; an empty one leaves no trace on its page.
    texts = {
        "scorecard": scorecard(claims_of, on_record),
        "tally": tally(counted),
        "margins": margins(counted),
        "limits": limits(counted, findings_at),
        "statements": statements(),
        "times": times(seconds_of),
        "headlines": front.headlines(evidence),
        "verdicts": _verdict_figure(counted, source / "book" / "figures"),
        "choices": front.choice_table(evidence),
        "needs": front.needs_table(list(notebooks)),
        "explorer": _explorer(notebooks, source / "book"),
        "pdf": _PDF_LINK if pdf else "",
    }
    if profile == "smoke":
        for name in ("tally", "headlines"):  # which no page includes both
            texts[name] = execution.SMOKE + texts[name]
    for name, text in texts.items():
        (source / "book" / f"_{name}.txt").write_text(text + "\n", "utf-8")
    worked_pages.replace(source / "book" / "five-minutes.md")
    return source


def _findings_at(chapter: str, notebook) -> dict[str, dict]:
    """Return findings at other limits: the record's, beside whose verdicts they stand.

    Where there is no record they are those of the build.
    """
    record = records.read(chapter)
    if record is None:
        return diff.findings_at(notebook)
    return record.get("findings at", {})


def _add_note(notebook, note: str) -> None:
    """Add a note behind the paragraph at the head of a chapter."""
    cell = notebook.cells[0]
    head, fence, rest = cell.source.partition("\n```\n")
    cell.source = f"{head}{fence}\n{note}\n{rest}"


def _verdict_figure(counted: dict[str, list[claims.Claim]], folder: Path) -> str:
    """Draw the verdicts by part of the paper; return the figure as MyST."""
    rows = list(itertools.chain.from_iterable(counted.values()))
    if rows:
        folder.mkdir(exist_ok=True)
        front.draw_verdicts(rows, folder / "verdicts.svg")
    return front.verdict_figure(rows, tally(counted))


def _explorer(notebooks: dict, folder: Path) -> str:
    """Compute the interactive figure, draw its static form; return it as MyST."""
    path = checkout.find_chapter("03")
    changed = notebooks[path.stem].metadata["wcka"]["run"]["parameters"]
    table = explorer.compute(front.all_values(path, changed))
    (folder / "figures").mkdir(exist_ok=True)
    explorer.draw(table, folder / "figures" / "explorer.svg")
    template = (folder / "_explorer.html").read_text("utf-8")
    return explorer.widget(table, template)


def _config() -> dict:
    """Return the configuration, with links to the repository if it is known."""
    config = yaml.safe_load((checkout.ROOT / "_config.yml").read_text("utf-8"))
    address = checkout.repository()
    if address:
        config["repository"] = {"url": address, "branch": "main", "path_to_book": ""}
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
    return config


def _extract_figures(notebook, folder: Path) -> None:
    """Write a chapter's named figures to files, for the pages that are no notebooks."""
    folder.mkdir(exist_ok=True)
    for cell in notebook.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        if not name:
            continue
        for output in cell.get("outputs", []):
            if "image/svg+xml" in output.get("data", {}):
                image = output.data["image/svg+xml"]
                (folder / f"{name}.svg").write_text(image, "utf-8")


def tally(found: dict[str, list[claims.Claim]]) -> str:
    """Return a sentence that counts the claims by verdict.

    Claims beyond the paper are counted in a sentence of their own, and a last one says
    what is known of claims of both kinds that cannot be told.

    Parameters
    ----------
    found : dict of str to list of Claim
        Claims of the chapters, by the stems of their files.

    Examples
    --------
    >>> tally({"01-theory": [claims.Claim("3.1", "it is so", "0.9", "holds")]})
    'The one claim of the paper that was tested holds.'
    """
    rows = list(itertools.chain.from_iterable(found.values()))
    text = sentences.count_sentence(
        front.of_paper(rows), "claim of the paper", "claims of the paper")
    beyond = front.beyond_paper(rows)
    if beyond:
        text += " " + sentences.count_sentence(
            beyond, "statement beyond the paper", "statements beyond the paper")
    known = Counter(row.known for row in rows)
    told = sentences.told_sentence(known[claims.IN_PART], known[claims.NOT_IN_FULL])
    return f"{text} {told}".strip()


def with_record(
    found: dict[str, list[claims.Claim]], on_record: dict[str, claims.Claim]
) -> dict[str, list[claims.Claim]]:
    """Return the claims of the chapters, those of the record where there is one.

    Parameters
    ----------
    found : dict of str to list of Claim
        Claims of this build, by the stems of the chapters' files.
    on_record : dict of str to Claim
        Claims of the run of record, by their keys.

    Examples
    --------
    >>> build = claims.Claim("3.1", "it is so", "0.9", "fails", key="so")
    >>> record = build._replace(verdict="holds")
    >>> with_record({"02": [build]}, {"so": record})["02"][0].verdict
    'holds'
    """
    counted = {}
    for chapter, chapter_claims in found.items():
        counted[chapter] = [
            on_record.get(claim.key, claim) for claim in chapter_claims]
    return counted


def scorecard(
    found: dict[str, list[claims.Claim]],
    on_record: dict[str, claims.Claim] | None = None,
) -> str:
    """Return tables of all claims that chapters tested, in the paper's order, as MyST.

    Parameters
    ----------
    found : dict of str to list of Claim
        Claims of the chapters, by the stems of their files.
    on_record : dict of str to Claim, optional
        Claims of the run of record, by their keys. Their findings and verdicts are
        shown, and the verdict of the build stands beside them.

    Examples
    --------
    >>> text = scorecard({"02-calibration": [
    ...     claims.Claim("3.1", "it is so", "0.9", "holds")]})
    >>> text.splitlines()[0], "chapter 2</a>" in text
    ('## 3.1 Calibration', True)
    """
    on_record = on_record or {}
    sections = []
    for part in claims.PARTS:
        claims_of_part = []
        columns = []
        for chapter, chapter_claims in found.items():
            address = f"../notebooks/{chapter}.html#{claims.ANCHOR}"
            number = int(chapter[:2])
            link = f'<a href="{address}">chapter {number}</a>'
            for claim in chapter_claims:
                if claims.part(claim.where) == part:
                    record = on_record.get(claim.key)
                    claims_of_part.append(record or claim)
                    columns.append((_beside_record(record, claim), link))
        if claims_of_part:
            table = claims.table(
                claims_of_part, columns, ("This build", "Tested in"))
            sections += [f"## {part}", table]
    return "\n\n".join(sections)


def _beside_record(record: claims.Claim | None, claim: claims.Claim) -> str:
    """Return the html of a build's verdict beside that of the record."""
    if record is None:
        return "not on record yet"
    text = claims.verdict_mark(claim.verdict)
    if {record.verdict, claim.verdict} == {"holds", "fails"}:
        text += " <strong>contradicts the record</strong>"
    return text


def margins(counted: dict[str, list[claims.Claim]]) -> str:
    """Return a table of the verdicts at other margins, as MyST.

    Parameters
    ----------
    counted : dict of str to list of Claim
        As from ``with_record``.

    Examples
    --------
    >>> margins({}).splitlines()[0]
    '| margin | holds | partly | fails | cannot be told | changed |'
    """
    usual = _verdicts(itertools.chain.from_iterable(counted.values()))
    lines = _head_of_tallies("margin")
    for margin in _MARGINS:
        name = f"**{margin:g}**" if margin == rules.MARGIN else f"{margin:g}"
        judged: list[claims.Claim] = []
        for chapter, chapter_claims in counted.items():
            judged += _judged_anew(chapter[:2], chapter_claims, margin)
        lines.append(f"| {name} | {_tally(_verdicts(judged), usual)} |")
    return "\n".join(lines)


def limits(
    counted: dict[str, list[claims.Claim]], findings_at: dict[str, dict[str, dict]]
) -> str:
    """Return a table of the verdicts at other limits of having learned, as MyST.

    Parameters
    ----------
    counted : dict of str to list of Claim
        As from ``with_record``.
    findings_at : dict of str to dict
        Of each chapter the findings at other limits, as ``diff.findings_at`` has them.

    Examples
    --------
    >>> limits({"03-functional": []}, {"03-functional": {}})
    'No chapter has found anything at other limits in this build.'
    """
    lines = _head_of_tallies("chapter", "least accuracy")
    for chapter, by_limit in findings_at.items():
        usual = _verdicts(counted[chapter])
        verdicts_at = {"**as judged**": usual} if by_limit else {}
        for limit in sorted(by_limit, key=float):
            findings = records.findings(by_limit[limit])
            verdicts_at[limit] = _verdicts(rules.judge(chapter[:2], findings))
        number = int(chapter[:2])
        for limit, verdicts in verdicts_at.items():
            lines.append(f"| {number} | {limit} | {_tally(verdicts, usual)} |")
    if len(lines) == 2:
        return "No chapter has found anything at other limits in this build."
    return "\n".join(lines)


def _verdicts(of_claims: Iterable[claims.Claim]) -> dict[str, str]:
    """Return the verdicts of claims by the keys of their statements."""
    return {claim.key: claim.verdict for claim in of_claims if claim.key}


def _head_of_tallies(*names: str) -> list[str]:
    """Return the first two lines of a table of tallies behind columns of names."""
    headings = [*names, *claims.VERDICTS, "changed"]
    return [f"| {' | '.join(headings)} |", "| ---: " * len(headings) + "|"]


def _tally(verdicts: dict[str, str], usual: dict[str, str]) -> str:
    """Count verdicts, by the keys of their statements, and how many are not as usual.

    Returned as cells of a table.
    """
    counts = Counter(verdicts.values())
    cells = [str(counts[verdict]) for verdict in claims.VERDICTS]
    changed = sum(verdict != usual[key] for key, verdict in verdicts.items())
    return " | ".join([*cells, str(changed)])


# Margins that the page of rules compares, the usual one among them
_MARGINS = (0.02, 0.05, rules.MARGIN, 0.15, 0.2)


def _judged_anew(
    chapter: str, chapter_claims: list[claims.Claim], margin: float
) -> list[claims.Claim]:
    """Return claims at another margin; none of a chapter without statements."""
    findings = {}
    for claim in chapter_claims:
        if not claim.key:
            return []
        parts = [rules.Part(*part) for part in claim.parts]
        findings[claim.key] = rules.Finding(parts, claim.text)
    return rules.judge(chapter, findings, margin)


def statements() -> str:
    """Return tables of the rules, and of all statements with theirs, as MyST.

    Examples
    --------
    >>> "| higher |" in statements()
    True
    """
    lines = ["| rule | answers yes if | no if |", "| :--- | :--- | :--- |"]
    for name, rule in rules.RULES.items():
        yes, no = rule.meaning.split("; no: ")
        lines.append(f"| {name} | {yes} | {no} |")
    lines += ["", "| place | statement | rule | family |",
              "| :--- | :--- | :--- | :--- |"]
    for statement in rules.all_statements().values():
        lines.append(f"| {statement.place} | {statement.says} | {statement.rule} | "
                     f"{statement.family} |")
    return "\n".join(lines)


def times(took: dict[str, float]) -> str:
    """Return a table of the chapters' times as MyST.

    Parameters
    ----------
    took : dict of str to float
        Seconds of the chapters, by the stems of their files.

    Examples
    --------
    >>> print(times({"01-theory": 12.0}))
    | chapter | seconds |
    | :--- | ---: |
    | {doc}`../notebooks/01-theory` | 12 |
    | all | 12 |
    """
    lines = ["| chapter | seconds |", "| :--- | ---: |"]
    for chapter, seconds in took.items():
        lines.append(f"| {{doc}}`../notebooks/{chapter}` | {seconds:.0f} |")
    lines.append(f"| all | {sum(took.values()):.0f} |")
    return "\n".join(lines)


# -------------------------------------------------------------------- its forms


def _html(source: Path) -> Path:
    """Build the html strictly; return its folder."""
    built = _sphinx(source, "html")
    missing = [page for page in pages() if not (built / f"{page}.html").exists()]
    if missing:
        raise RuntimeError(
            f"the book was not built: missing page {', '.join(missing)}"
        )
    return built


def _put_in_place(built: Path, site: Path) -> None:
    """Move a built book to its place; then remove the book that was there.

    Each moment but one, between two renamings, has a whole book in its place. If the
    place is a link, such as one to the folder of a web server, the book goes to where
    the link leads.

    Raises
    ------
    OSError
        If the book cannot be moved, and the old one is there as before; or if an old
        one cannot be removed, and the new one is in its place.
    """
    place = Path(os.path.realpath(site))
    folder = Path(tempfile.mkdtemp(prefix=_OLD_BOOK, dir=place.parent))
    old_book = folder / "old"
    new_book = folder / "new"
    try:
        # Between two file systems this copies, which takes time and may fail in part.
        shutil.move(built, new_book)
        if os.path.lexists(place):
            place.rename(old_book)
        new_book.rename(place)
    except OSError:
        if os.path.lexists(old_book):
            old_book.rename(place)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Also those of earlier builds, which were killed or could not remove them.
    for leftover in place.parent.glob(f"{_OLD_BOOK}*"):
        try:
            shutil.rmtree(leftover)
        except OSError as error:
            raise OSError(
                f"the book is built: {site / 'index.html'}; but an old one cannot be "
                f"removed: {error}"
            ) from error


def pages() -> list[str]:
    """Return all pages of the table of contents, in order.

    Examples
    --------
    >>> pages()[0]
    'book/index'
    """
    contents = yaml.safe_load((checkout.ROOT / "_toc.yml").read_text("utf-8"))
    names = [contents["root"]]
    for part in contents["parts"]:
        for entry in part["chapters"]:
            names.append(entry["file"])
            for section in entry.get("sections", []):
                names.append(section["file"])
    return names


def _sphinx(source: Path, builder: str) -> Path:
    """Build one form of the book by jupyter-book; a warning is an error."""
    out = checkout.BUILD / "jupyter-book"
    log = checkout.BUILD / f"jupyter-book-{builder}.log"
    command: list[str | Path] = [
        sys.executable, "-c", _JUPYTER_BOOK, str(os.getpid()), "build", source, "-W",
        "-n", "--keep-going", "--path-output", out, "--builder", builder,
    ]
    if builder == "html":  # other forms are written from the doctrees that it leaves
        command.append("--all")
    with log.open("wb") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=subprocess.STDOUT, cwd=checkout.ROOT,
            env={**os.environ, "PYTHONUTF8": "1"},  # whatever the user's locale is
        )
    if done.returncode:
        complaints = _complaints(log.read_text("utf-8", "replace"))
        lines = ["the book was not built", *complaints, f"log: {log}"]
        raise RuntimeError("\n  ".join(lines))
    return out / "_build" / builder


def _complaints(log: str) -> list[str]:
    """Return the warnings and errors in a log; if there are none, its last line."""
    lines = [printable(line) for line in log.splitlines() if line.strip()]
    complaints = []
    for line in lines:
        if "WARNING" in line or "ERROR" in line:
            complaints.append(line)
    return complaints[:20] or lines[-1:]


def browser() -> str:
    """Return the path of a Chromium.

    Raises
    ------
    RuntimeError
        If none is installed.

    Examples
    --------
    >>> browser()  # doctest: +SKIP
    '/usr/bin/chromium'
    """
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    raise RuntimeError(
        f"no browser for the PDF: install one of {', '.join(BROWSERS)}"
    )


def _one_page(source: Path) -> Path:
    """Build one page that holds the whole book; return its path."""
    built = _sphinx(source, "singlehtml")
    text = (built / "book" / "index.html").read_text("utf-8")
    # On paper no figure opens: the links would lead to files of this machine.
    text = re.sub(
        r'<a class="[^"]*image-reference[^"]*"[^>]*>(<img[^>]*>)</a>', r"\1", text)
    # Links between pages become links within the one page.
    text = re.sub(
        r'href="\.\./notebooks/([\w-]+)\.html[^"]*"',
        r'href="#document-notebooks/\1"',
        text,
    )
    page = built / "whole.html"  # Sphinx writes its paths as if the page stood here
    page.write_text(text, "utf-8")
    return page


def _print(page: Path, pdf: Path) -> None:
    """Print a page to a PDF as the browser would.

    Raises
    ------
    RuntimeError
        If the browser fails, does not end within ten minutes, or writes no whole PDF.
    """
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu",
        "--no-pdf-header-footer", "--virtual-time-budget=60000",
        f"--print-to-pdf={pdf}", page.as_uri(),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except subprocess.CalledProcessError as error:
        last_lines = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        reason = " ".join([str(error), *last_lines])
        raise RuntimeError(f"the PDF was not made: {printable(reason)}") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            "the PDF was not made: the browser did not end within ten minutes"
        ) from None
    content = pdf.read_bytes() if pdf.exists() else b""
    if not (content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")):
        raise RuntimeError(f"the PDF was not made: no whole PDF in {pdf}")
