"""The shape of the project: which module may import which."""

import ast
import re

from wcka.book import checkout

PACKAGE = checkout.ROOT / "wcka"


def imported(module):
    """Names of the modules of the package that one of them imports, wherever it does."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def order():
    """Modules in the order of the map."""
    text = (checkout.ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(r"(\w+)\.py`", text.split("## The map")[1].split("| `notebooks/")[0])


def test_every_module_stands_on_a_page():
    pages = "".join(p.read_text() for p in (checkout.ROOT / "book" / "api").glob("*.md"))
    assert sorted(re.findall(r"automodule:: wcka\.(\w+)", pages)) == sorted(order())


def test_the_map_names_every_module_and_none_imports_one_below_it():
    modules = order()
    assert sorted(modules) == sorted(p.stem for p in PACKAGE.glob("[a-z]*.py"))
    for i, module in enumerate(modules):
        assert not set(imported(module)) - set(modules[:i]), module
