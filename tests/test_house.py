"""The shape of the project: which module may import which."""

import ast
import re

from wcka import chapters

PACKAGE = chapters.ROOT / "wcka"


def imported(module):
    """Names of the modules of the package that one of them imports, wherever it does."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def test_the_map_names_every_module_and_none_imports_one_below_it():
    text = (chapters.ROOT / "CONTRIBUTING.md").read_text()
    order = re.findall(r"(\w+)\.py`", text.split("## The map")[1].split("| `notebooks/")[0])
    assert sorted(order) == sorted(p.stem for p in PACKAGE.glob("[a-z]*.py"))
    for module in order:
        assert not set(imported(module)) - set(order[:order.index(module)]), module
