"""Chapters executed by papermill: whole or not at all, each with what it was made from."""

import contextlib
import datetime
import hashlib
import html
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

import jupytext
import nbformat

from ..experiments.fingerprint import code_of, whole_code
from . import checkout
from .checkout import UsageError
from .diff import canonical
from .parameters import parameters

# What a page shows is worded and drawn by these.
_SHOWN = ("book.claims", "book.figures", "book.verdicts")

SMOKE = """```{warning}
This page was computed at the smoke profile, everything very small: it shows that the chapters run.
Its numbers and verdicts mean nothing.
```

"""
COLAB = """import sys

if "google.colab" in sys.modules:  # there the module is not installed yet
    %pip install --quiet 'wcka[book] @ git+{address}'"""


def write_pair(path: Path) -> Path:
    """Write the .ipynb next to a chapter's .py: no outputs, cell ids that never change.

    Where the project's address is known, it begins with a cell that installs the module in Colab.
    A notebook that holds cells of its own (see ``cells_of_pair_alone``) is left as it is, with a
    warning.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    Path
        The .ipynb.
    """
    pair = path.with_suffix(".ipynb")
    if cells_of_pair_alone(path):
        warnings.warn(refusal_of_pair(path), stacklevel=2)
        return pair
    notebook = jupytext.read(path)
    if address := checkout.repository():
        cell = nbformat.v4.new_code_cell(COLAB.format(address=address))
        cell.metadata["tags"] = ["colab", "remove-cell"]
        notebook.cells.insert(0, cell)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{i:03}"
    notebook.metadata["wcka"] = {"pair": _digest_of_cells(notebook)}
    nbformat.write(notebook, pair)
    return pair


def cells_of_pair_alone(path: Path) -> list[str]:
    """Return the cells that somebody typed into a chapter's .ipynb and the .py does not have.

    What ``write_pair`` wrote and nobody changed since then is merely older than the .py.

    Parameters
    ----------
    path : Path
        The chapter's .py file.

    Returns
    -------
    list of str
        Sources of the cells; empty where there is no .ipynb.
    """
    pair = path.with_suffix(".ipynb")
    try:
        notebook = nbformat.read(pair, 4)
    except FileNotFoundError:
        return []
    except Exception:  # no notebook at all: nbformat has an error for each kind of damage
        return [pair.read_text(errors="replace")]
    if notebook.metadata.get("wcka", {}).get("pair") == _digest_of_cells(notebook):
        return []
    shared = {cell.source.strip() for cell in jupytext.read(path).cells}
    alone = [cell.source for cell in notebook.cells if cell.source.strip() not in {"", *shared}]
    return [source for source in alone if "google.colab" not in source]


def refusal_of_pair(path: Path) -> str:
    """Say why a chapter's .ipynb is not overwritten, and how its cells are brought over."""
    pair = path.with_suffix(".ipynb")
    first_line = cells_of_pair_alone(path)[0].strip().splitlines()[0]
    return (f"{pair.name} holds cells that {path.name} does not have (the first: {first_line[:60]!r}"
            f"); bring them over by `jupytext --to py:percent -o {path.name} {pair.name}`, or delete "
            f"{pair.name}, then try again")


def _digest_of_cells(notebook) -> str:
    sources = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:20]


# ------------------------------------------------------------------------------- running


def check_output(output: Path) -> None:
    """Refuse a file that no executed notebook should be written to, before anything runs.

    Raises
    ------
    UsageError
        For another ending than .ipynb, a chapter's own pair, what is no regular file, and a folder
        that cannot be written to.
    """
    if output.suffix != ".ipynb":
        raise UsageError(f"-o {output}: wanted a name that ends in .ipynb")
    if output.exists() and not output.is_file():
        raise UsageError(f"-o {output}: there is something that is no regular file")
    if output.resolve() in {path.with_suffix(".ipynb").resolve() for path in checkout.chapters()}:
        raise UsageError(f"-o {output}: that is a chapter's own notebook; choose another name")
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"-o {output}: {folder} is no folder that can be written to")


def run_chapter(path: Path, values: dict[str, object], profile: str, output: Path) -> Path:
    """Execute a chapter by papermill; `output` appears only when every cell succeeded.

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
        If a cell failed, or the kernel died: which, why, and where the notebook as far as it came
        was put.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)  # of an earlier run
    started = time.perf_counter()
    try:
        nbformat.write(jupytext.read(path), partial)
        with _kernel() as kernel:
            papermill.execute_notebook(
                partial, partial, values, kernel_name=kernel, cwd=checkout.NOTEBOOKS,
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--log-level=ERROR"])  # its warnings are not about the chapter
        notebook = nbformat.read(partial, 4)
        check_executed(notebook, path.name)
        _finish(notebook, path, values, profile, time.perf_counter() - started)
        nbformat.write(notebook, partial)
        partial.replace(output)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        partial.replace(failed)
        if isinstance(error, DeadKernelError):
            reason = "its kernel died; was it killed, or out of memory?"
        else:
            reason = f"cell {error.cell_index}: {error.ename}: {error.evalue}"
        raise RuntimeError(f"chapter {path.stem} failed: {reason}\n  as far as it came: {failed}"
                           ) from None
    finally:
        partial.unlink(missing_ok=True)
    return output


@contextlib.contextmanager
def _kernel() -> Iterator[str]:
    """Name of a kernel that is the same for every user: this interpreter, and nobody's settings.

    Another environment's "python3", a profile of IPython or a plotting backend that the user's
    environment names would make other pages.
    """
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="wcka-kernel-") as folder:
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3", "language": "python",
            "env": {
                "IPYTHONDIR": f"{folder}/ipython",
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                "TQDM_DISABLE": "1",  # no progress bars in the pages: papermill shows its own
                "SOURCE_DATE_EPOCH": "0",  # figures hold no date
            }}
        home = Path(folder) / "kernels" / "wcka-book"
        home.mkdir(parents=True)
        (home / "kernel.json").write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *filter(None, [before])])
        try:
            yield home.name
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def check_executed(notebook, name: str) -> None:
    """Refuse a notebook that did not run to its end without errors, with all its figures.

    Raises
    ------
    RuntimeError
        For an error output, a code cell that never ran, a figure's cell without an image, or
        papermill's mark of a failure.
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
            raise RuntimeError(f"{name}: cell {i} should show a figure, and shows none")


def _shows_image(cell) -> bool:
    kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
    return any(kind.startswith("image/") for kind in kinds)


def _finish(notebook, path: Path, values: dict, profile: str, seconds: float) -> None:
    """Say on the page what ran, and mark the notebook with what it was made from."""
    if values:  # a run that changed a default shows so; an empty injected cell is not there
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace("# Parameters", "# Parameters of this run")
    number = path.stem[:2]
    run_table = _table(_description_of_run(notebook, profile, seconds))
    parameter_table = _table(_description_of_parameters(path, values))
    notebook.cells.append(nbformat.v4.new_markdown_cell(
        f"## What ran\n\n{run_table}\n\nThe parameters of this run:\n\n{parameter_table}\n\n"
        f"Run it again: `python -m wcka run {number}`, with other values of parameters "
        f"`python -m wcka run {number} -p NAME VALUE`; see {{doc}}`../book/rerun`. The source: "
        f"{{download}}`{path.name} <{path.name}>`.\n", id="what-ran"))
    if profile == "smoke":
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SMOKE, id="smoke-warning"))
    # The kernel of the run exists no more; whoever opens the notebook has their own.
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["wcka"] = {"key": key_of(path, values, profile), "seconds": seconds}


def _description_of_run(notebook, profile: str, seconds: float) -> dict[str, str]:
    libraries = ("torch", "numpy", "scipy", "pandas")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    now = datetime.datetime.now(datetime.UTC)
    return {
        "profile": profile, "commit": checkout.commit(),
        "versions": f"Python {platform.python_version()}, {versions}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "took": f"{seconds:.0f} s (with whatever the cache already held), finished "
                f"{now:%Y-%m-%d %H:%M} UTC",
        "outputs": f"<code>{canonical(notebook)[:16]}</code> (two runs with the same parameters "
                   f"agree in this, times left aside)",
    }


def _description_of_parameters(path: Path, values: dict) -> dict[str, str]:
    rows = {}
    for parameter in parameters(path).values():
        value = html.escape(repr(values.get(parameter.name, parameter.default)))
        comment = parameter.comment
        if parameter.name in values:
            comment += f" (default: {parameter.default!r})"
        rows[f"<code>{parameter.name}: {parameter.kind} = {value}</code>"] = comment
    return rows


def _table(rows: dict[str, str]) -> str:
    """Two columns of MyST."""
    lines = (f"| {name} | {text} |".replace("\n", " ") for name, text in rows.items())
    return "| | |\n| :--- | :--- |\n" + "\n".join(lines)


def _processor() -> str:
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0].strip() if names else platform.machine()


def key_of(path: Path, values: dict, profile: str) -> str:
    """Digest of all that a chapter's page depends on.

    That is its source and parameters, the code of the rooms that compute, that of the modules that
    word and draw what a page shows, and the versions of the libraries that make numbers.
    """
    code = whole_code() + code_of(_SHOWN)
    text = path.read_text() + json.dumps(values, sort_keys=True) + profile + code
    return hashlib.sha256(text.encode()).hexdigest()


def is_fresh(output: Path, key: str) -> bool:
    """Tell whether there is an executed chapter that was made from this."""
    try:
        notebook = nbformat.read(output, 4)
        check_executed(notebook, output.name)
        return notebook.metadata.get("wcka", {}).get("key") == key
    except (OSError, ValueError, RuntimeError):
        return False
