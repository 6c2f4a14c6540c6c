"""The chapters: their parameters, checked before anything runs, and how they are executed."""

import ast
import contextlib
import datetime
import hashlib
import html
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
import typing
from pathlib import Path

import jupytext
import nbformat
import yaml

from . import cache
from .checks import nearest
from .runs import canonical

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "_build"


SMOKE = """```{warning}
This page was computed at the smoke profile, everything very small: it shows that the chapters run.
Its numbers and verdicts mean nothing.
```

"""
COLAB = """import sys

if "google.colab" in sys.modules:  # there the module is not installed yet
    %pip install --quiet 'wcka[book] @ git+{address}'"""


class UsageError(Exception):
    """What the user asked for cannot be run; nothing was started."""


def every() -> list[Path]:
    """Sources of all chapters, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.py"))


def find(name: str) -> Path:
    """Source of the chapter with this number or name."""
    known = {stem: path for path in every() for stem in (path.stem, path.stem[:2])}
    name = Path(name).stem
    return known[nearest(name.zfill(2) if name.isdigit() else name, known, "chapter")]


class Parameter(typing.NamedTuple):
    """One line of a chapter's parameters cell."""

    name: str
    type: typing.Any
    default: object
    comment: str

    @property
    def kind(self) -> str:
        """Its type, as one writes it."""
        return str(self.type) if typing.get_args(self.type) else self.type.__name__


def parameters(path: Path) -> dict[str, Parameter]:
    """Read the parameters cell of a chapter: annotated literals, one a line, each explained."""
    cells = [c for c in jupytext.read(path).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path.name}: wanted one cell tagged parameters, found {len(cells)}")
    lines = cells[0].source.splitlines()
    found = {}
    for node in ast.parse(cells[0].source).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            raise ValueError(f"{path.name}: not an annotated literal: {lines[node.lineno - 1]}")
        name, kind = ast.unparse(node.target), eval(ast.unparse(node.annotation))
        comment = lines[node.lineno - 1].partition("#")[2].strip()
        found[name] = Parameter(name, kind, ast.literal_eval(node.value), comment)
    return found


def choose(path: Path, profile: str, given: list[tuple[str, str]]) -> dict[str, object]:
    """Values that differ from a chapter's defaults: the profile's, then the ones given.

    Raises
    ------
    UsageError
        For an unknown profile or parameter (the nearest spelling is shown), or a value of the
        wrong type.
    """
    known = parameters(path)
    chosen = {}
    for name, value in read_profile(profile).get(path.stem[:2], {}).items():
        chosen[name] = _typed(path, known, name, value)
    for name, text in given:
        chosen[name] = _typed(path, known, name, text)
    return {n: value for n, value in chosen.items() if value != known[n].default}


def read_profile(name: str) -> dict[str, dict]:
    """Parameters of a profile by chapter number; quick is the notebooks' own defaults."""
    files = {p.stem: p for p in (NOTEBOOKS / "profiles").glob("*.yml")}
    if name == "quick":
        return {}
    try:
        return yaml.safe_load(files[nearest(name, [*files, "quick"], "profile")].read_text()) or {}
    except ValueError as error:
        raise UsageError(error) from None


def _typed(path: Path, known: dict[str, Parameter], name: str, value: object) -> object:
    try:
        wanted = known[nearest(name, known, f"parameter of chapter {path.stem}")]
    except ValueError as error:
        raise UsageError(error) from None
    shown = value
    if isinstance(value, str) and wanted.type is not str:
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if wanted.type is float and type(value) is int:
        value = float(value)
    if not _is_a(value, wanted.type):
        raise UsageError(f"parameter {name}: wanted {wanted.kind}, for example "
                         f"{wanted.default!r}; got {shown!r}")
    return value


def _is_a(value: object, kind: object) -> bool:
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(v, typing.get_args(kind)[0]) for v in value)
    return type(value) is kind  # bool is an int for isinstance, not for us


def datasets(path: Path, values: dict[str, object]) -> list[str]:
    """Data sets that a chapter reads: its parameters whose names end in dataset, or datasets."""
    chosen: dict = {name: p.default for name, p in parameters(path).items()} | values
    given = [value for name, value in chosen.items() if re.search("datasets?$", name)]
    return [name for each in given for name in (each if isinstance(each, list) else [each])]


def vet(path: Path, values: dict[str, object]) -> None:
    """Run a chapter's own checks of its parameters, its cell tagged checks, without a kernel.

    Raises
    ------
    UsageError
        With what they say of these values.
    """
    names: dict[str, object] = {}
    for cell in (c for c in jupytext.read(path).cells if c.cell_type == "code"):
        tags = cell.metadata.get("tags", [])
        if "checks" in tags:
            try:
                exec(cell.source, names)
            except ValueError as error:
                raise UsageError(f"chapter {path.stem}: {error}") from None
            return
        if "parameters" in tags:
            names.update({n: p.default for n, p in parameters(path).items()} | values)
        else:  # nothing that computes or draws
            body: list[ast.stmt] = [
                node for node in ast.parse(cell.source).body
                if isinstance(node, (ast.Import, ast.ImportFrom))]
            exec(compile(ast.Module(body, []), path.name, "exec"), names)


def repository() -> str:
    """Address of the project on GitHub, from the environment or git; empty where it has none."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    done = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True,
                          text=True)
    found = re.search(r"github\.com[/:]([\w.-]+/[\w.-]+?)(\.git)?$", done.stdout.strip())
    return f"https://github.com/{found[1]}" if found else ""


def write_pair(path: Path) -> Path:
    """Write the .ipynb next to a chapter's .py: no outputs, cell ids that never change.

    Where the project's address is known, it begins with a cell that installs the module in Colab.
    """
    notebook = jupytext.read(path)
    if address := repository():
        notebook.cells.insert(0, nbformat.v4.new_code_cell(COLAB.format(address=address), metadata={
            "tags": ["colab", "remove-cell"]}))
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{i:03}"
    pair = path.with_suffix(".ipynb")
    nbformat.write(notebook, pair)
    return pair


# ------------------------------------------------------------------------------- running


def run(path: Path, values: dict[str, object], profile: str, output: Path) -> Path:
    """Execute a chapter by papermill; `output` appears only when every cell succeeded.

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
    # No progress bars in the pages: papermill shows its own. Figures hold no date.
    os.environ.update(TQDM_DISABLE="1", SOURCE_DATE_EPOCH="0")
    try:
        nbformat.write(jupytext.read(path), partial)
        papermill.execute_notebook(
            partial, partial, values, kernel_name="python3", cwd=NOTEBOOKS,
            progress_bar=sys.stderr.isatty(),
            extra_arguments=["--log-level=ERROR"])  # its warnings are not about the chapter
        notebook = nbformat.read(partial, 4)
        check(notebook, path.name)
        _finish(notebook, path, values, profile, time.perf_counter() - started)
        nbformat.write(notebook, partial)
        partial.replace(output)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        partial.replace(failed)
        reason = ("its kernel died; was it killed, or out of memory?"
                  if isinstance(error, DeadKernelError)
                  else f"cell {error.cell_index}: {error.ename}: {error.evalue}")
        raise RuntimeError(f"chapter {path.stem} failed: {reason}\n  as far as it came: {failed}"
                           ) from None
    finally:
        partial.unlink(missing_ok=True)
    return output


def check(notebook, name: str) -> None:
    """Refuse a notebook that did not run to its end without errors.

    Raises
    ------
    RuntimeError
        For an error output, a code cell that never ran, or papermill's mark of a failure.
    """
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise RuntimeError(f"{name}: papermill reports a failure")
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise RuntimeError(f"{name}: cell {i} never ran")
        if any(out.output_type == "error" for out in cell.outputs):
            raise RuntimeError(f"{name}: cell {i} ended in an error")


def _finish(notebook, path: Path, values: dict, profile: str, seconds: float) -> None:
    """Say on the page what ran, and mark the notebook with what it was made from."""
    if values:  # a run that changed a default shows so; an empty injected cell is not there
        for cell in notebook.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace("# Parameters", "# Parameters of this run")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}"
                         for name in ("torch", "numpy", "scipy", "pandas"))
    now = datetime.datetime.now(datetime.UTC)
    rows = {
        "profile": profile, "commit": _commit(),
        "versions": f"Python {platform.python_version()}, {versions}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "took": f"{seconds:.0f} s (with whatever the cache already held), finished "
                f"{now:%Y-%m-%d %H:%M} UTC",
        "outputs": f"<code>{canonical(notebook)[:16]}</code> (two runs with the same parameters "
                   f"agree in this, times left aside)",
    }
    settings = {f"<code>{p.name}: {p.kind} = {html.escape(repr(values.get(p.name, p.default)))}"
                f"</code>": p.comment + f" (default: {p.default!r})" * (p.name in values)
                for p in parameters(path).values()}
    number = path.stem[:2]
    notebook.cells.append(nbformat.v4.new_markdown_cell(
        f"## What ran\n\n{_table(rows)}\n\nThe parameters of this run:\n\n{_table(settings)}\n\n"
        f"Run it again: `python -m wcka run {number}`, with other values of parameters "
        f"`python -m wcka run {number} -p NAME VALUE`; see {{doc}}`../book/rerun`. The source: "
        f"{{download}}`{path.name} <{path.name}>`.\n", id="what-ran"))
    if profile == "smoke":
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(SMOKE, id="smoke-warning"))
    notebook.metadata["wcka"] = {"key": key_of(path, values, profile), "seconds": seconds}


def _table(rows: dict[str, str]) -> str:
    """Two columns of MyST."""
    lines = (f"| {name} | {text} |".replace("\n", " ") for name, text in rows.items())
    return "| | |\n| :--- | :--- |\n" + "\n".join(lines)


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT,
                          capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown (no git repository)"


def _processor() -> str:
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0].strip() if names else platform.machine()


def key_of(path: Path, values: dict, profile: str) -> str:
    """Digest of all that a chapter's page depends on: source, parameters, module."""
    text = path.read_text() + json.dumps(values, sort_keys=True) + profile + cache.whole_source()
    return hashlib.sha256(text.encode()).hexdigest()


def is_fresh(output: Path, key: str) -> bool:
    """Whether there is an executed chapter that was made from this."""
    try:
        return nbformat.read(output, 4).metadata.get("wcka", {}).get("key") == key
    except (OSError, ValueError):
        return False


