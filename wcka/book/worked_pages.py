"""Pages whose code is run when the book is built: text and cells become a notebook."""

import contextlib
import io
import re
from pathlib import Path

import nbformat
import torch

_CODE = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)


def cells_of(text: str) -> list[tuple[str, str]]:
    """Return the cells of a page in MyST: its texts, and its blocks of Python.

    Parameters
    ----------
    text : str
        The page.

    Returns
    -------
    list of (str, str)
        "markdown" or "code", and the source.

    Examples
    --------
    >>> cells_of("# Title\\n\\n```python\\nprint(1)\\n```\\n")
    [('markdown', '# Title'), ('code', 'print(1)')]
    """
    cells = []
    for i, piece in enumerate(_CODE.split(text)):
        kind = "code" if i % 2 else "markdown"  # split puts the groups between the rest
        if piece.strip():
            cells.append((kind, piece.strip()))
    return cells


def run(page: Path):
    """Run the code of a page, block after block, and return it as an executed notebook.

    The blocks share their names. What they print is their output; what they draw from
    PyTorch's random numbers leaves the caller's as they were.

    Parameters
    ----------
    page : Path
        The page in MyST.

    Returns
    -------
    NotebookNode

    Raises
    ------
    RuntimeError
        If a block fails; the message has its number and the error.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     page = Path(folder, "page.md")
    ...     _ = page.write_text("```python\\nprint(1 + 1)\\n```\\n")
    ...     run(page).cells[0].outputs[0].text
    '2\\n'
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3"}
    names: dict[str, object] = {"__name__": "__main__"}
    count = 0
    with torch.random.fork_rng(devices=[]):
        for i, (kind, source) in enumerate(cells_of(page.read_text("utf-8"))):
            if kind == "markdown":
                cell = nbformat.v4.new_markdown_cell(source)
            else:
                count += 1
                printed = _printed(source, names, f"{page.name}, block {count}")
                outputs = []
                if printed:
                    outputs.append(nbformat.v4.new_output("stream", text=printed))
                cell = nbformat.v4.new_code_cell(
                    source, execution_count=count, outputs=outputs)
            cell["id"] = f"{page.stem}-{i}"  # the same in each build
            notebook.cells.append(cell)
    return notebook


def _printed(source: str, names: dict[str, object], where: str) -> str:
    """Run a block of code with these names, and return what it prints."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, where, "exec"), names)
    except Exception as error:
        raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error
    return printed.getvalue()


def replace(page: Path) -> Path:
    """Put the executed notebook of a page in its place, and return the notebook's file.

    Parameters
    ----------
    page : Path
        The page in MyST; it is removed, for Sphinx knows a page by its name without the
        ending.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     page = Path(folder, "page.md")
    ...     _ = page.write_text("# Title\\n")
    ...     replace(page).name, page.exists()
    ('page.ipynb', False)
    """
    notebook = page.with_suffix(".ipynb")
    nbformat.write(run(page), notebook)
    page.unlink()
    return notebook
