"""The public face: few names, each documented."""

from __future__ import annotations

import inspect

import pytest

import lambdadb


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
