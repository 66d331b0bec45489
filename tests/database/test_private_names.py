"""
Where psycopg or SQLAlchemy renames what is not public, engines go on, by the public way.

The names are read from our modules. Each is renamed in the sources of psycopg and SQLAlchemy, in a
process of its own (hidden_names.py), in which an engine is made and used.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy.dialects.postgresql

import lambdadb.drivers.psycopg
from lambdadb.drivers.psycopg import pipeline

OURS_ALONE = {"_adapters", "_asyncio"}  # attributes of our own that theirs happen to share a name with
OURS = Path(lambdadb.drivers.psycopg.__file__).parent
SOURCES = [
    *Path(psycopg.__file__).parent.rglob("*.py"),
    *Path(sqlalchemy.dialects.postgresql.__file__).parent.glob("*.py"),
]


def private_names(path: Path) -> set[str]:
    """What a module calls, overrides, or asks for by a string, and whose name is not public."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            found |= {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return {name for name in found - OURS_ALONE if re.fullmatch(r"_[a-zA-Z]\w*", name)}


THEIRS = set().union(*(set(re.findall(r"\b_[a-zA-Z]\w*", path.read_text())) for path in SOURCES))
BY_MODULE = {path.name: private_names(path) & THEIRS for path in OURS.glob("*.py")}
# Public names of a private class, and members of a private enumeration.
OF_PRIVATE_CLASSES = {*pipeline._PREPARED_METHODS, "NO", "SHOULD"}
NAMES = sorted(set().union(*BY_MODULE.values(), OF_PRIVATE_CLASSES))


@pytest.fixture(scope="module")
def outcomes(server):
    """What came of each name."""
    url = server.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("hidden_names.py")), url]
    path = os.pathsep.join([str(Path(lambdadb.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [*command, *NAMES], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in lines] == NAMES, done.stderr
    return {line["name"]: line for line in lines}


@pytest.mark.timeout(600)
@pytest.mark.sweep
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_works_without_a_private_name(name, outcomes):
    """It runs a transaction, resets its session, keeps a deadline, and says once what is missing."""
    outcome = outcomes[name]
    right = [1, True, "public", True]
    assert [outcome.get("error"), outcome.get("sync"), outcome.get("async")] == [None, right, right]
    said = [line for line in outcome["log"] if "BEGIN is sent alone" in line]
    wanted = name in BY_MODULE["pipeline.py"] | OF_PRIVATE_CLASSES
    assert len(said) == (2 if wanted else 0), "one line for each of two engines"
    assert all(name in line for line in said)


# psycopg 3.2 has no such error.
NAMES_OF_ERRORS = set(vars(psycopg.errors))


def test_they_stand_in_few_modules():
    """In the cursors, which the engine does without if one is missing, and a few at other places."""
    assert {module: names for module, names in BY_MODULE.items() if names} == {
        "pipeline.py": BY_MODULE["pipeline.py"],
        "unit_of_work.py": {"_check_results", "_convert_query", "_execute_gen"},  # of the same cursors
        "connection.py": {"_start_query", "_exec_command", "_get_tx_start_command"}
        | (NAMES_OF_ERRORS & {"_WaitTimeout"}),
        "driver.py": {"_prepared", "_to_flush"},
        "dialect.py": BY_MODULE["dialect.py"],
    }


def test_the_check_knows_every_name_that_the_cursors_use():
    """What the code calls is what is checked when an engine is made."""
    checked = {
        *pipeline._CURSOR_METHODS,
        *pipeline._CURSOR_ATTRIBUTES,
        *pipeline._CONNECTION_METHODS,
        "_prepared",
        "_preparing",
    }
    assert BY_MODULE["pipeline.py"] <= checked
    assert pipeline.find_missing() == []
