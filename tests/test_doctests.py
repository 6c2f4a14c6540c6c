"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import wcka

PACKAGE = Path(wcka.__file__).parent
OPTIONS = (
    doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)


def module_names():
    """Names of all modules of the package, in alphabetical order."""
    names = []
    for path in PACKAGE.rglob("*.py"):
        if path.stem == "__main__":  # importing it would run the command line
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names.append(".".join(parts).removesuffix(".__init__"))
    return sorted(names)


def marked(name):
    """Mark a module slow whose examples train networks."""
    trains = name.startswith("wcka.experiments.") or name == "wcka.book.explorer"
    return pytest.param(name, marks=[pytest.mark.slow] if trains else [])


@pytest.mark.parametrize("name", [marked(name) for name in module_names()])
def test_examples_of_a_module_give_what_they_say(name):
    module = importlib.import_module(name)
    torch.manual_seed(0)  # some networks of examples would be dead by bad luck
    result = doctest.testmod(module, optionflags=OPTIONS)
    assert result.failed == 0
