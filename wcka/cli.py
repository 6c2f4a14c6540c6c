"""``python -m wcka``: compare checkpoints; run chapters and build the book from them."""

import argparse
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
import shutil
import subprocess
import sys
import time
import typing
from pathlib import Path

import jupytext
import nbformat
import yaml

from . import cache, data
from .checks import nearest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "_build"


class UsageError(Exception):
    """What the user asked for cannot be run; nothing was started."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 for a failed run, 2 for a wrong call."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (UsageError, ValueError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wcka", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pairs = commands.add_parser("compare", help="how alike networks in files are, by wCKA")
    pairs.add_argument("files", nargs="+", metavar="FILE", help="state dicts: .safetensors or .pt")
    pairs.add_argument("--arch", metavar="NAME", help="torchvision:resnet18, or module:function of "
                       "yours that builds the network (default: fully connected)")
    pairs.add_argument("--input-shape", nargs="+", type=int, metavar="N",
                       help="shape of one input, as 3 224 224")
    pairs.add_argument("--freeze", nargs="+", default=[], metavar="KIND",
                       help="of gate, norm, attention: see wcka.chain")
    pairs.add_argument("--layers", action="store_true", help="all layers, even if it takes long")
    pairs.add_argument("--matrix", type=Path, metavar="OUT.png", help="draw all pairs")
    pairs.add_argument("--json", action="store_true", help="print JSON")
    pairs.set_defaults(command=_compare_command)
    run = commands.add_parser("run", help="run one chapter")
    run.add_argument("chapter", metavar="CHAPTER", help="its number or name: 02, 02-calibration")
    run.add_argument("--profile", default="quick", help="a file of notebooks/profiles")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     dest="parameters", help="set a parameter; may be repeated")
    run.add_argument("-o", type=Path, metavar="OUT.ipynb", dest="output",
                     help="where to put the executed notebook (default: below _build)")
    run.set_defaults(command=_run_command)
    book = commands.add_parser("book", help="run the chapters that changed and build the html")
    book.add_argument("--profile", default="quick")
    book.set_defaults(command=_book_command)
    params = commands.add_parser("params", help="list a chapter's parameters")
    params.add_argument("chapter", metavar="CHAPTER")
    params.set_defaults(command=_params_command)
    pair = commands.add_parser("pair", help="write each chapter's .ipynb from its .py")
    pair.set_defaults(command=lambda arguments: [write_pair(path) for path in chapters()])
    fetch = commands.add_parser("data", help="fetch and verify a data set")
    fetch.add_argument("dataset", nargs="?", default="mnist")
    fetch.set_defaults(command=lambda arguments: print(data.fetch(arguments.dataset)))
    return parser


# ------------------------------------------------------------------------------- checkpoints


def _compare_command(arguments) -> None:
    from . import checkpoints  # torch takes seconds to load, and the other commands do without

    if arguments.matrix:
        checkpoints.check_image(arguments.matrix)
    try:
        result = checkpoints.compared(arguments.files, arguments.arch, arguments.input_shape,
                                      arguments.freeze, arguments.layers)
    except Exception as error:  # a network of the user's may raise anything when it runs
        raise UsageError(str(error).strip().splitlines()[0] if str(error).strip()
                         else type(error).__name__) from None
    print(checkpoints.as_json(result) if arguments.json else checkpoints.described(result))
    if arguments.matrix:
        checkpoints.draw(result, arguments.matrix)


# ------------------------------------------------------------------------------- chapters


def chapters() -> list[Path]:
    """Sources of all chapters, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]-*.py"))


def find_chapter(name: str) -> Path:
    """Source of the chapter with this number or name."""
    known = {stem: path for path in chapters() for stem in (path.stem, path.stem[:2])}
    name = Path(name).stem
    return known[nearest(name.zfill(2) if name.isdigit() else name, known, "chapter")]


class Parameter(typing.NamedTuple):
    """One line of a chapter's parameters cell."""

    name: str
    type: object
    default: object
    comment: str


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
        kind = known[nearest(name, known, f"parameter of chapter {path.stem}")].type
    except ValueError as error:
        raise UsageError(error) from None
    shown = value
    if isinstance(value, str) and kind is not str:
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if kind is float and type(value) is int:
        value = float(value)
    if not _is_a(value, kind):
        written = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else kind
        raise UsageError(f"parameter {name}: wanted {written}, for example "
                         f"{known[name].default!r}; got {shown!r}")
    return value


def _is_a(value: object, kind: object) -> bool:
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(v, typing.get_args(kind)[0]) for v in value)
    return type(value) is kind  # bool is an int for isinstance, not for us


def _params_command(arguments) -> None:
    for p in parameters(find_chapter(arguments.chapter)).values():
        kind = p.type if typing.get_args(p.type) else p.type.__name__
        print(f"{p.name}: {kind} = {p.default!r}\n    {p.comment}")


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
            body = [node for node in ast.parse(cell.source).body
                    if isinstance(node, (ast.Import, ast.ImportFrom))]
            exec(compile(ast.Module(body, []), path.name, "exec"), names)


def write_pair(path: Path) -> Path:
    """Write the .ipynb next to a chapter's .py: no outputs, cell ids that never change."""
    notebook = jupytext.read(path)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{i:03}"
    pair = path.with_suffix(".ipynb")
    nbformat.write(notebook, pair)
    return pair


# ------------------------------------------------------------------------------- running


def run_chapter(path: Path, values: dict[str, object], profile: str, output: Path) -> Path:
    """Execute a chapter by papermill; `output` appears only when every cell succeeded.

    Raises
    ------
    RuntimeError
        If a cell failed: which, why, and where the notebook as far as it came was put.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)  # of an earlier run
    started = time.perf_counter()
    try:
        nbformat.write(jupytext.read(path), partial)
        os.environ["TQDM_DISABLE"] = "1"  # no progress bars in the pages; papermill shows its own
        papermill.execute_notebook(
            partial, partial, values, kernel_name="python3", cwd=NOTEBOOKS,
            progress_bar=sys.stderr.isatty(), request_save_on_cell_execute=False,
            extra_arguments=["--log-level=ERROR"])  # its warnings are not about the chapter
        notebook = nbformat.read(partial, 4)
        check(notebook, path.name)
        _finish(notebook, path, values, profile, time.perf_counter() - started)
        nbformat.write(notebook, partial)
        partial.replace(output)
    except papermill.PapermillExecutionError as error:
        partial.replace(failed)
        raise RuntimeError(f"chapter {path.stem} failed in cell {error.cell_index}: {error.ename}: "
                           f"{error.evalue}\n  as far as it came: {failed}") from None
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
    settings = {name: values.get(name, p.default) for name, p in parameters(path).items()}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}"
                         for name in ("torch", "numpy", "scipy", "pandas"))
    rows = {
        "parameters": ", ".join(f"<code>{n} = {html.escape(repr(v))}</code>"
                                for n, v in settings.items()),
        "profile": profile, "commit": _commit(),
        "versions": f"Python {platform.python_version()}, {versions}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "took": f"{seconds:.0f} s (with whatever the cache already held), finished "
                f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    cell = nbformat.v4.new_markdown_cell(
        f"## What ran\n\n| | |\n| :--- | :--- |\n{table}\n", id="what-ran")
    notebook.cells.append(cell)
    if profile == "smoke":
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(
            "```{warning}\nThis page was computed at the smoke profile, everything very small: it "
            "shows that the chapter runs. Its numbers and verdicts mean nothing.\n```",
            id="smoke-warning"))
    notebook.metadata["wcka"] = {"key": _key(path, values, profile), "seconds": seconds}


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


def _key(path: Path, values: dict, profile: str) -> str:
    """Digest of all that a chapter's page depends on: source, parameters, module."""
    modules = sorted({p.stem for p in (ROOT / "wcka").glob("*.py")} - {"cli", "__main__"})
    text = path.read_text() + json.dumps(values, sort_keys=True) + profile + cache.source(modules)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_fresh(output: Path, key: str) -> bool:
    try:
        return nbformat.read(output, 4).metadata.get("wcka", {}).get("key") == key
    except (OSError, ValueError):
        return False


def _run_command(arguments) -> None:
    path = find_chapter(arguments.chapter)
    values = choose(path, arguments.profile, arguments.parameters)
    vet(path, values)
    output = arguments.output or BUILD / "runs" / f"{path.stem}.ipynb"
    print(run_chapter(path, values, arguments.profile, output.absolute()))


# ------------------------------------------------------------------------------- the book


def _book_command(arguments) -> None:
    chosen = {path: choose(path, arguments.profile, []) for path in chapters()}
    for path, values in chosen.items():  # what is wrong or missing is said before the first starts
        vet(path, values)
    data.fetch("mnist")
    source = BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, source)
    (source / "notebooks").mkdir()
    for path, values in chosen.items():
        output = BUILD / "chapters" / arguments.profile / f"{path.stem}.ipynb"
        if _is_fresh(output, _key(path, values, arguments.profile)):
            print(f"{path.stem}: unchanged", flush=True)
        else:
            print(f"{path.stem}: running ...", end=" ", flush=True)
            run_chapter(path, values, arguments.profile, output)
            print(f"{nbformat.read(output, 4).metadata['wcka']['seconds']:.0f} s", flush=True)
        notebook = nbformat.read(output, 4)
        check(notebook, output.name)
        shutil.copy(output, source / "notebooks")
        _extract_figures(notebook, source / "book" / "figures")
    print(build_html(source))


def _extract_figures(notebook, folder: Path) -> None:
    """Write a chapter's named figures to files, for the pages that are no notebooks."""
    folder.mkdir(exist_ok=True)
    for cell in notebook.cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []) if name else []:
            if "image/svg+xml" in output.get("data", {}):
                (folder / f"{name}.svg").write_text(output.data["image/svg+xml"])


def build_html(source: Path) -> Path:
    """Build the html strictly; return the path of index.html.

    Raises
    ------
    RuntimeError
        If jupyter-book fails or warns, or a page of the table of contents is missing.
    """
    site = BUILD / "html"
    shutil.rmtree(site, ignore_errors=True)
    log = BUILD / "jupyter-book.log"
    with log.open("w") as out:
        done = subprocess.run(
            [Path(sys.executable).with_name("jupyter-book"), "build", source, "-W", "-n",
             "--keep-going", "--all", "--path-output", BUILD / "jupyter-book"],
            stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
    built = BUILD / "jupyter-book" / "_build" / "html"
    toc = yaml.safe_load((source / "_toc.yml").read_text())
    pages = [toc["root"], *(c["file"] for c in toc["chapters"])]
    missing = [p for p in pages if not (built / f"{p}.html").exists()]
    if done.returncode or missing:
        complaints = [line for line in log.read_text().splitlines()
                      if "WARNING" in line or "ERROR" in line]
        raise RuntimeError("the book was not built" + "".join(f"\n  {c}" for c in complaints[:20])
                           + "".join(f"\n  missing page: {p}" for p in missing) + f"\n  log: {log}")
    shutil.move(built, site)
    return site / "index.html"
