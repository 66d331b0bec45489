"""The public face: few names, each documented."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import lambdadb

ROOT = Path(__file__).parents[1]


def test_the_public_face_stays_small():
    """At most twenty names, in order, all of which exist."""
    assert lambdadb.__all__ == sorted(lambdadb.__all__)
    assert len(lambdadb.__all__) <= 20
    assert all(hasattr(lambdadb, name) for name in lambdadb.__all__)


@pytest.mark.parametrize("name", lambdadb.__all__)
def test_every_public_name_is_documented(name):
    """A docstring that begins with the promise, for every public class and function and its methods."""
    thing = getattr(lambdadb, name)
    assert (inspect.getdoc(thing) or "").strip()
    for method, function in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(function) and not method.startswith("_"):
            assert function.__doc__, f"{name}.{method}"


def test_type_checkers_see_every_public_name():
    """The typed project in tests/typing uses all of them."""
    used = set()
    for file in (ROOT / "tests" / "typing").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "lambdadb":
                used |= {alias.name for alias in node.names}
    assert used == set(lambdadb.__all__)


def test_the_reference_has_every_public_name():
    """docs/reference/api.rst lists all of them."""
    page = (ROOT / "docs" / "reference" / "api.rst").read_text()
    listed = re.findall(
        r"^\.\. auto(?:class|exception|function):: (?:lambdadb\.)?(\w+)(?:\(.*\))?$", page, re.M
    )
    assert set(lambdadb.__all__) <= set(listed)
