"""Chapters executed by papermill: complete or not at all, marked with their inputs."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat

from ..experiments import fingerprint
from ..experiments.processes import sweep
from ..measures.spelling import printable
from . import checkout, rules, tables
from .checkout import UsageError
from .diff import canonical
from .parameters import read_parameters

# The modules that word and draw what a page shows.
_SHOWN = (
    "book.claims", "book.figures", "book.leads", "book.rules", "book.sentences")

# How the names of files begin that hold a notebook while it runs
_PARTIAL = ".wcka-run-"
# Bytes in the name of a notebook: file systems allow some 255
_LONGEST_NAME = 230
# Seconds after which nobody writes such a file any more: a run writes its notebook
# after each cell, and the longest cell takes hours
_STALE = 7 * 86400

# The characters that MyST or html may take for syntax within a line
_SYNTAX = re.compile(r"[\\`*_{}\[\]<>&|$~^!#@%\"']|:(?=//)")

SMOKE = """```{warning}
This page was computed at the smoke profile, everything very small: it shows that the
chapters run. Its numbers and verdicts mean nothing.
```

"""
COLAB = """import sys

if "google.colab" in sys.modules:  # there the module is not installed yet
    %pip install --quiet 'wcka[book] @ git+{address}'"""


# ------------------------------------------------------------------- pairs of notebooks


def write_pair(path: Path) -> Path:
    """Write the .ipynb next to a chapter's .py: no outputs, cell ids that never change.

    If the project's address is known, the notebook begins with a cell that installs the
    module in Colab. A notebook with cells of its own (see ``cells_of_pair_alone``) is
    left as it is, with a warning.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    Path
        The .ipynb.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "07-tiny.py"
    ...     _ = path.write_text("1 + 1")
    ...     write_pair(path).name
    '07-tiny.ipynb'
    """
    pair = path.with_suffix(".ipynb")
    if cells_of_pair_alone(path):
        warnings.warn(refusal_of_pair(path), stacklevel=2)
        return pair
    notebook = checkout.read_chapter(path)
    if address := checkout.repository():
        cell = nbformat.v4.new_code_cell(COLAB.format(address=address))
        cell.metadata["tags"] = ["colab", "remove-cell"]
        notebook.cells.insert(0, cell)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{i:03}"
    # The digest tells a later call that nobody changed these cells since.
    notebook.metadata["wcka"] = {"pair": _digest_of_cells(notebook)}
    nbformat.write(notebook, pair)
    return pair


def cells_of_pair_alone(path: Path) -> list[str]:
    """Return the cells that somebody typed into a chapter's .ipynb and the .py lacks.

    A notebook that ``write_pair`` wrote and nobody changed since is merely older than
    the .py: none of its cells count.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    list of str
        Sources of the cells; empty if there is no .ipynb. The text of a file that is
        not a notebook counts as one cell.

    Examples
    --------
    >>> cells_of_pair_alone(Path("no-such-folder/07-tiny.py"))
    []
    """
    pair = path.with_suffix(".ipynb")
    if not pair.exists():
        return []
    notebook = _notebook_in(pair)
    if notebook is None:
        text = pair.read_text(errors="replace")
        return [text] if text.strip() else []
    if notebook.metadata.get("wcka", {}).get("pair") == _digest_of_cells(notebook):
        return []
    chapter = checkout.read_chapter(path)
    shared_sources = {cell.source.strip() for cell in chapter.cells}
    lone_sources = []
    for cell in notebook.cells:
        is_empty = not cell.source.strip()
        is_colab_cell = '"google.colab" in sys.modules' in cell.source
        is_shared = cell.source.strip() in shared_sources
        if not (is_empty or is_colab_cell or is_shared):
            lone_sources.append(cell.source)
    return lone_sources


def refusal_of_pair(path: Path) -> str:
    """Say why a chapter's .ipynb is not overwritten, and how to bring its cells over.

    Parameters
    ----------
    path : Path
        The chapter's .py file; its .ipynb holds cells of its own.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "07-tiny.py"
    ...     _ = path.write_text("1 + 1")
    ...     _ = path.with_suffix(".ipynb").write_text("damaged")
    ...     refusal_of_pair(path)
    '07-tiny.ipynb is not a notebook: mend it, or delete it, then try again'
    """
    pair = path.with_suffix(".ipynb")
    if _notebook_in(pair) is None:
        return f"{pair.name} is not a notebook: mend it, or delete it, then try again"
    first_line = cells_of_pair_alone(path)[0].strip().splitlines()[0]
    return (
        f"{pair.name} holds cells that {path.name} does not have (the first: "
        f"{first_line[:60]!r}); bring them over by `jupytext --to py:percent -o "
        f"{path.name} {pair.name}`, or delete {pair.name}, then try again")


def _notebook_in(file: Path):
    """Return the notebook that a file holds, or None if it holds something else."""
    try:
        return nbformat.read(file, 4)
    except Exception:  # nbformat has an error for each kind of damage
        return None


def _digest_of_cells(notebook) -> str:
    """Return a digest of the cells as they are typed: their kinds and sources."""
    sources = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:20]


# ------------------------------------------------------------------------------ running


def check_output(output: Path) -> None:
    """Refuse, before anything runs, a file that must not become an executed notebook.

    Parameters
    ----------
    output : Path
        The file as the user named it.

    Raises
    ------
    UsageError
        For an ending other than .ipynb, a name that is too long, a chapter's own pair,
        something that is not a regular file, a notebook that no run wrote, and a folder
        that cannot be written to.

    Examples
    --------
    >>> check_output(Path("out.html"))
    Traceback (most recent call last):
    UsageError: -o out.html: wanted a name that ends in .ipynb
    """
    name = printable(str(output))
    if output.suffix != ".ipynb":
        raise UsageError(f"-o {name}: wanted a name that ends in .ipynb")
    # If the run fails, the name of the notebook gets seven characters more.
    if len(os.fsencode(output.name)) > _LONGEST_NAME:
        raise UsageError(
            f"-o {name}: wanted a name of at most {_LONGEST_NAME} bytes")
    # By os.path: pathlib raises an error in a folder that may not be looked into.
    if os.path.exists(output) and not os.path.isfile(output):
        raise UsageError(f"-o {name}: it exists, and is not a regular file")
    if os.path.exists(output) and not _is_executed_chapter(output):
        raise UsageError(
            f"-o {name}: it exists, and no run wrote it; choose another name, or "
            f"delete it")
    for path in checkout.chapters():
        if output.resolve() == path.with_suffix(".ipynb").resolve():
            raise UsageError(
                f"-o {name}: that is a chapter's own notebook; choose another name")
    # Folders that do not exist yet are made below the nearest one that does.
    folder = output.absolute().parent
    while not os.path.exists(folder):
        folder = folder.parent
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UsageError(
            f"-o {name}: {printable(str(folder))} is not a folder that can be written "
            f"to")


def _is_executed_chapter(file: Path) -> bool:
    """Tell whether a file is what a run leaves: it may be replaced by another run."""
    notebook = _notebook_in(file)
    if notebook is None:
        return False
    has_key = "key" in notebook.metadata.get("wcka", {})
    return has_key or "papermill" in notebook.metadata


def run_chapter(
        path: Path, values: dict[str, object], profile: str, output: Path) -> Path:
    """Execute a chapter by papermill; `output` appears only if every cell succeeded.

    So do the tables that the chapter keeps, beside it.

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    values : dict
        Parameters that differ from its defaults.
    profile : str
        Name of the profile, for the page.
    output : Path
        Where to put the executed notebook.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    RuntimeError
        If a cell failed or the kernel died; the message names the cell, the error, and
        the file that holds the notebook as far as it came.

    Examples
    --------
    >>> output = checkout.BUILD / "runs" / "01.ipynb"
    >>> run_chapter(  # doctest: +SKIP
    ...     checkout.find_chapter("01"), {"epochs": 1}, "smoke", output).name
    '01.ipynb'
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    sweep(output.parent, f"{_PARTIAL}*", _STALE)
    # A run writes beside its output, under a name that no other process uses.
    partial = output.with_name(f"{_PARTIAL}{os.getpid()}.ipynb")
    # Papermill would replace {NAME} in a path by the value of a parameter.
    escaped_partial = str(partial).replace("{", "{{").replace("}", "}}")
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)  # left by an earlier run
    started = time.perf_counter()
    try:
        nbformat.write(checkout.read_chapter(path), partial)
        with _kernel(partial.with_suffix("")) as kernel:
            papermill.execute_notebook(
                escaped_partial, escaped_partial, values, kernel_name=kernel,
                cwd=checkout.NOTEBOOKS, progress_bar=sys.stderr.isatty(),
                # What the kernel logs is not about the chapter, whose errors are in the
                # notebook; on Ctrl-C it logs that nobody listens any more.
                extra_arguments=["--log-level=CRITICAL"])
        notebook = nbformat.read(partial, 4)
        check_executed(notebook, path.name)
        _finish(notebook, path, values, profile, time.perf_counter() - started)
        nbformat.write(notebook, partial)
        tables.move_tables(partial.with_suffix(""), output.with_suffix(""))
        partial.replace(output)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        partial.replace(failed)
        if isinstance(error, DeadKernelError):
            reason = "its kernel died; was it killed, or out of memory?"
        else:
            reason = f"cell {error.cell_index}: {error.ename}: {error.evalue}"
        raise RuntimeError(
            f"chapter {path.stem} failed: {reason}\n  as far as it came: {failed}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
        tables.remove_tables(partial.with_suffix(""))
    return output


@contextlib.contextmanager
def _kernel(stem_of_tables: Path) -> Iterator[str]:
    """Name of a kernel that is the same for every user: this interpreter, no settings.

    Another environment's "python3", a profile of IPython or a plotting backend that the
    user's environment names would make other pages.
    """
    with tempfile.TemporaryDirectory(prefix="wcka-kernel-") as folder:
        spec = {
            "argv": [
                sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
            "env": {
                "IPYTHONDIR": f"{folder}/ipython",
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                "PYTHONUTF8": "1",  # whatever the user's locale is
                "TQDM_DISABLE": "1",  # no progress bars in pages: papermill has its own
                "SOURCE_DATE_EPOCH": "0",  # figures hold no date
                tables.VARIABLE: str(stem_of_tables),
            }}
        home = Path(folder) / "kernels" / "wcka-book"
        home.mkdir(parents=True)
        (home / "kernel.json").write_text(json.dumps(spec), "utf-8")
        with _jupyter_path_begins_with(folder):
            yield home.name


@contextlib.contextmanager
def _jupyter_path_begins_with(folder: str) -> Iterator[None]:
    """Have Jupyter look for kernels in a folder before all others, for a while."""
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = f"{folder}{os.pathsep}{before}" if before else folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["JUPYTER_PATH"]
        else:
            os.environ["JUPYTER_PATH"] = before


def check_executed(notebook, name: str) -> None:
    """Refuse a notebook that did not run to its end, failed, or lacks a figure.

    Parameters
    ----------
    notebook : NotebookNode
    name : str
        How the message names the notebook.

    Raises
    ------
    RuntimeError
        For an error output, a code cell that never ran, a figure's cell without an
        image, or papermill's mark of a failure.

    Examples
    --------
    >>> cell = nbformat.v4.new_code_cell("1 + 1")
    >>> check_executed(nbformat.v4.new_notebook(cells=[cell]), "07-tiny.ipynb")
    Traceback (most recent call last):
    RuntimeError: 07-tiny.ipynb: cell 0 never ran
    """
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise RuntimeError(f"{name}: papermill reports a failure")
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise RuntimeError(f"{name}: cell {i} never ran")
        if any(output.output_type == "error" for output in cell.outputs):
            raise RuntimeError(f"{name}: cell {i} ended in an error")
        if "figure" in cell.metadata.get("mystnb", {}) and not _shows_image(cell):
            raise RuntimeError(
                f"{name}: cell {i} should show a figure, and shows none")


def _shows_image(cell) -> bool:
    """Tell whether an output of a code cell is an image of any format."""
    for output in cell.outputs:
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            return True
    return False


# ---------------------------------------------------------------- the page of a chapter


def _finish(notebook, path: Path, values: dict, profile: str, seconds: float) -> None:
    """Add to a page what ran, and mark its notebook with the key of its inputs."""
    if values:  # the page shows that the run changed defaults
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace(
                    "# Parameters", "# Parameters of this run")
    number = path.stem[:2]
    run_table = _table(_description_of_run(notebook, profile, seconds))
    parameter_table = _table(_description_of_parameters(path, values))
    notebook.cells.append(nbformat.v4.new_markdown_cell(
        f"## What ran\n\n{run_table}\n\n"
        f"The parameters of this run:\n\n{parameter_table}\n\n"
        f"Run it again: `python -m wcka run {number}`, with other values of parameters "
        f"`python -m wcka run {number} -p NAME VALUE`; see {{doc}}`../book/rerun`. "
        f"The source: {{download}}`{path.name} <{path.name}>`.\n", id="what-ran"))
    if profile == "smoke":
        notebook.cells.insert(
            1, nbformat.v4.new_markdown_cell(SMOKE, id="smoke-warning"))
    # The kernel of the run no longer exists; whoever opens the notebook has their own.
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["wcka"] = {
        "key": key_of(path, values, profile),
        "seconds": seconds,
        "run": {
            "profile": profile,
            "parameters": values,
            "commit": checkout.commit(),
            "versions": _versions(),
            "machine": _machine(),
        },
    }


def _description_of_run(notebook, profile: str, seconds: float) -> dict[str, str]:
    """Return the rows of the table that describes a run."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "profile": _literal(profile),
        "commit": checkout.commit(),
        "versions": _versions(),
        "machine": _literal(_machine()),
        "took": (
            f"{seconds:.0f} s (with whatever the cache already held), finished "
            f"{now:%Y-%m-%d %H:%M} UTC"),
        "outputs": (
            f"<code>{canonical(notebook)[:16]}</code> (two runs with the same "
            f"parameters agree in this, times left aside)"),
    }


def _versions() -> str:
    """Return the versions of Python and of the libraries that make numbers.

    Those of results are in ``fingerprint.LIBRARIES``; pandas makes tables of them.
    """
    versions = [f"Python {platform.python_version()}"]
    for library in (*fingerprint.LIBRARIES.values(), "pandas"):
        versions.append(f"{library} {importlib.metadata.version(library)}")
    return ", ".join(versions)


def _machine() -> str:
    """Return the processor, its cores and the operating system."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"


def _description_of_parameters(path: Path, values: dict) -> dict[str, str]:
    """Return the rows of the table of parameters: name, type and value; meaning."""
    rows = {}
    for parameter in read_parameters(path).values():
        value = _literal(repr(values.get(parameter.name, parameter.default)))
        comment = parameter.comment
        if parameter.name in values:
            comment += f" (default: {_literal(repr(parameter.default))})"
        rows[f"<code>{parameter.name}: {parameter.kind} = {value}</code>"] = comment
    return rows


def _literal(text: str) -> str:
    """Return MyST that shows a text as it is, whatever it holds.

    References to characters stand for text, and never for syntax: neither markup nor
    html, and no end of a table's cell.
    """
    return _SYNTAX.sub(lambda match: f"&#{ord(match[0])};", text)


def _table(rows: dict[str, str]) -> str:
    """Return a table of two columns in MyST."""
    lines = ["| | |", "| :--- | :--- |"]
    for name, text in rows.items():
        lines.append(f"| {name} | {text} |".replace("\n", " "))
    return "\n".join(lines)


def _processor() -> str:
    """Return the name of the processor; where none is known, its architecture."""
    try:
        information = Path("/proc/cpuinfo").read_text("utf-8")
        names = re.findall(r"model name\s*: (.*)", information)
    except OSError:
        names = []
    return names[0].strip() if names else platform.machine()


# --------------------------------------------------------------- what a page depends on


def key_of(path: Path, values: dict, profile: str) -> str:
    """Return a digest of everything that a chapter's page depends on.

    This is its source and parameters, the code of the rooms that compute, the code of
    the modules that word and draw what a page shows, the statements that it judges, the
    data in files beside the code and beside the records, and the versions of the
    libraries that make numbers, with that of pandas, which makes tables of them.

    Parameters
    ----------
    path : Path
        The chapter's .py file.
    values : dict
        Parameters that differ from its defaults.
    profile : str
        Name of the profile.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> path = checkout.find_chapter("01")
    >>> key_of(path, {}, "quick") == key_of(path, {"seed": 1}, "quick")
    False
    """
    code = fingerprint.whole_code() + fingerprint.code_of(_SHOWN)
    code += str(rules.statements(path.stem[:2]))
    text = path.read_text("utf-8") + json.dumps(values, sort_keys=True) + profile + code
    text += importlib.metadata.version("pandas")
    digest = hashlib.sha256(text.encode())
    for file in _data_files():
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _data_files() -> list[Path]:
    """Return the files of numbers that any chapter may read.

    They are in the rooms that compute, and in the folder of results. Those of a run of
    record are not among them: chapters make records and never read them.
    """
    folders = [fingerprint.PACKAGE / room for room in fingerprint.ROOMS]
    folders.append(checkout.ROOT / "book" / "results")
    files = []
    for folder in folders:
        files += [*folder.glob("*.json"), *folder.glob("*.csv")]
    return sorted(files)


def is_fresh(output: Path, key: str) -> bool:
    """Tell whether a file is a sound executed chapter that was made from these inputs.

    Parameters
    ----------
    output : Path
        Where the executed notebook would be.
    key : str
        The digest of its inputs, by ``key_of``.

    Examples
    --------
    >>> is_fresh(Path("no-such-file.ipynb"), "")
    False
    """
    try:
        notebook = nbformat.read(output, 4)
        check_executed(notebook, output.name)
        return notebook.metadata.get("wcka", {}).get("key") == key
    except (OSError, ValueError, RuntimeError):
        return False
