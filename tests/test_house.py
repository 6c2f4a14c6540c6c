"""The shape of the project: one face, rooms, a library that stands alone."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

import wcka
from wcka.book import checkout

PACKAGE = checkout.ROOT / "wcka"
ROOMS = ("measures", "weights", "networks", "experiments", "book")


def run_python(code, *arguments, cwd=None, path=None):
    """Run code in a new process; return its last printed line, read as JSON."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd or "/tmp")}
    if path:
        environment["PYTHONPATH"] = str(path)
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


# ----------------------------------------------------------------------------- the face


PUBLIC = {
    "cka", "procrustes", "dcka", "chain", "wcka", "pairwise", "agreement", "corrupt",
    "CORRUPTIONS", "attacks", "load"}


def test_the_face_shows_every_public_name():
    assert set(dir(wcka)) >= PUBLIC
    assert dir(wcka) == wcka.__all__
    for name in wcka.__all__:
        assert getattr(wcka, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ckaa'"):
        wcka.ckaa  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_on_demand():
    typed_names = []
    for block in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(block, ast.If):  # if TYPE_CHECKING
            for statement in block.body:
                typed_names += [alias.asname for alias in statement.names]
    assert sorted(typed_names) == wcka.__all__
    assert (PACKAGE / "py.typed").exists()


def test_importing_the_face_loads_no_library():
    modules = run_python(
        "import wcka, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert not {"torch", "numpy", "pandas", "scipy"} & set(modules)


HEAVY = {"torch", "numpy", "pandas", "matplotlib", "nbformat", "jupytext", "papermill"}
CALL = """
import json, sys
from wcka import cli
try:
    status = cli.main(sys.argv[1:])
except SystemExit as error:
    status = error.code
print()
print(json.dumps([status, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(("arguments", "expected_status"), [
    (["--help"], 0),
    (["compare", "--help"], 0),
    (["params", "02"], 0),
    (["params", "77"], 2),
    (["run", "77"], 2),
    (["run", "02", "-p", "sede", "3"], 2),
    (["run", "02", "-p", "seed", "three"], 2),
    (["run", "02", "--profile", "smok"], 2),
    (["book", "--profile", "smok"], 2),
    (["compare", "a.pt"], 2),
    (["compare", "a.pt", "b.pt"], 2),
    (["family", "--help"], 0),
    (["family", "no-such-folder"], 2),
    (["diff", "a", "b"], 2),
    (["nonsense"], 2),
])
def test_help_and_refusals_load_no_library(arguments, expected_status):
    status, modules = run_python(CALL, *arguments)
    assert status == expected_status
    assert not HEAVY & set(modules)


# -------------------------------------------------------------------------- the library


BLOCK = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(json.loads(sys.argv.pop(1)))
sys.meta_path.insert(0, Blocked())
"""


def name_of_requirement(line):
    """Name of the package in a requirement, such as "scipy" in "scipy>=1.11"."""
    return re.match(r"[\w.-]+", line)[0].lower()


def import_names_of_extras():
    """Names under which the packages that only an extra brings are imported."""
    text = (checkout.ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    packages_of_extras = set()
    for lines in project["optional-dependencies"].values():
        packages_of_extras |= set(map(name_of_requirement, lines))
    import_names = set()
    for import_name, packages in packages_distributions().items():
        if packages_of_extras & {package.lower() for package in packages}:
            import_names.add(import_name)
    assert {"pandas", "torchvision", "skimage", "matplotlib", "yaml"} <= import_names
    core = set(map(name_of_requirement, project["dependencies"]))
    return sorted(import_names - core - {"wcka", "mypy", "_pytest", "pytest"})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Run code where the package stands without a checkout and without any extra."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(
        PACKAGE, folder / "site" / "wcka", ignore=shutil.ignore_patterns("__pycache__"))
    blocked = json.dumps(import_names_of_extras())

    def run(code, *arguments):
        return run_python(
            BLOCK + code, blocked, *arguments, cwd=folder, path=folder / "site")

    run.folder = folder
    return run


MEASURE = """
import torch, wcka
from wcka.measures import MEASURES
torch.manual_seed(0)
x, y, inputs = torch.randn(20, 4), torch.randn(20, 3), torch.randn(20, 2)
network = torch.nn.Sequential(
    torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
options = {"dcka": {"inputs": inputs}, "minibatch_cka": {"batch_size": 10}}
result = {}
for name in MEASURES:
    result[name] = getattr(wcka, name)(x, y, **options.get(name, {}))
images = (torch.rand(2, 28, 28) * 255).to(torch.uint8)
labels = torch.zeros(20, dtype=int)
attacked_images = wcka.attacks.fgsm(network, torch.rand(20, 4), labels, 0.1)
result["chain"] = list(wcka.chain(network).shape)
result["itself"] = wcka.wcka(network, network)
result["pairwise"] = wcka.pairwise("cka", [x, y]).tolist()
result["agreement"] = wcka.agreement(y, y)
result["corrupt"] = list(wcka.corrupt(images, "fog").shape)
result["attacked"] = list(attacked_images.shape)
print(json.dumps(result))
"""


def test_the_library_alone_has_every_measure(alone):
    result = alone(MEASURE)
    for name in ("cka", "dcka", "procrustes", "pwcca"):
        assert -1 <= result[name] <= 1
    assert result["chain"] == [4, 3]
    assert result["itself"] == pytest.approx(1)
    assert result["agreement"] == 1
    assert result["corrupt"] == [2, 28, 28]
    assert result["attacked"] == [20, 4]


LOAD = """
import wcka
try:
    wcka.load()
except ModuleNotFoundError as error:
    print(json.dumps(str(error)))
"""


def test_the_library_alone_says_which_package_a_name_needs(alone):
    message = alone(LOAD)
    assert "needs the package" in message
    assert "pip install 'wcka[experiments]'" in message


COMPARE = """
import torch
from wcka import cli
network = torch.nn.Sequential(
    torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
torch.save(network.state_dict(), "a.pt")
torch.save(network.state_dict(), "b.pt")
status = cli.main(["compare", "a.pt", "b.pt", *sys.argv[1:]])
print()
print(json.dumps(status))
"""


@pytest.mark.parametrize(("arguments", "status"), [
    ([], 0), (["--json"], 0), (["--matrix", "out.png"], 2)])
def test_the_library_alone_compares_files(alone, arguments, status):
    assert alone(COMPARE, *arguments) == status


REFUSE = """
import contextlib, io
from wcka import cli
message = io.StringIO()
with contextlib.redirect_stderr(message):
    status = cli.main(sys.argv[1:])
print(json.dumps([status, message.getvalue()]))
"""


def files_in(folder):
    """All files of a folder, other than compiled modules."""
    return {path for path in folder.rglob("*.*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("arguments", [
    ["run", "01"], ["book"], ["params", "01"], ["pair"]])
def test_the_library_alone_refuses_the_books_commands_and_writes_nothing(
        alone, arguments):
    files_before = files_in(alone.folder)
    status, message = alone(REFUSE, *arguments)
    assert status == 2
    assert "need a checkout" in message
    assert message.count("\n") == 1
    assert files_in(alone.folder) == files_before


# ---------------------------------------------------------------------------- the rooms


def test_every_module_stands_on_a_page():
    listed_modules = []
    for path in (checkout.ROOT / "book" / "api").glob("*.md"):
        listed_modules += re.findall(r"automodule:: wcka\.([\w.]+)", path.read_text())
    modules = ["cli"]
    for room in ROOMS:
        paths = (PACKAGE / room).glob("[a-z]*.py")
        modules += [f"{room}.{path.stem}" for path in paths]
    assert sorted(listed_modules) == sorted(modules)


def test_no_module_has_the_name_of_something_that_it_defines():
    for path in PACKAGE.rglob("[a-z]*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert node.name != path.stem, path


@pytest.mark.parametrize("path", checkout.chapters(), ids=lambda path: path.stem)
def test_code_of_chapters_fits_the_page(path):
    for line in path.read_text().splitlines():
        is_prose = line.startswith("# ")  # and captions of figures, which are long
        assert is_prose or len(line) <= 80, line
