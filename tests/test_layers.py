"""The house: a module imports only from floors below its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "lambdadb"
FLOORS = [
    {"background", "errors", "extras", "gc_pause"},
    {"aws", "deadline", "faults", "session_tag", "url"},
    {"drivers"},
    {"credentials", "tracing"},
    {"policy", "retry"},
    {"settings"},
    {"checkout", "connect", "http"},
    {"pool_registry", "slot"},
    {"lifecycle", "pool"},
    {"invocation", "loop_clock", "outcome", "proxy_check", "resume"},
    {"transaction"},
    {"asgi", "attach", "plugin"},
    {"engine"},
    {"aio", "readers"},
    {"layer", "operate"},
    {"lab"},
    {"cli", "testing"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = list(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports when it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    if path.parent.name == "functions":
        return set()  # code of functions, which use the package as users do
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    return {name.split(".")[1] for name in names if name.startswith("lambdadb.")}


@pytest.mark.parametrize("path", MODULES, ids=room_of)
def test_imports_point_down(path):
    """No module knows one on its own floor or above it; only the command line knows the lab."""
    room = room_of(path)
    if room == "__init__":
        return
    above = {name for name in imported_rooms(path) - {room} if FLOOR.get(name, 99) >= FLOOR[room]}
    assert not above, f"{room} imports {above}"


def test_the_guide_draws_the_same_floors():
    """CONTRIBUTING.md shows the floors as they are, the highest first."""
    guide = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text()
    drawn = re.search(r"## The floors.*?```text\n(.*?)```", guide, re.S)
    assert drawn, "no block of floors"
    assert [set(line.split()) for line in reversed(drawn[1].splitlines())] == FLOORS


TOOLS = {"lab", "cli", "operate", "testing", "layer.py"}
DRIVERS = {"psycopg", "pymysql", "data_api", "postgresql_identity.py"}
NEUTRAL = [path for path in MODULES if not {*TOOLS, *DRIVERS} & set(path.relative_to(SOURCE).parts)]


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_driver_knows_its_database(path):
    """No module above `drivers/psycopg` names psycopg, libpq, an SQLSTATE or a port; URLs may."""
    text = re.sub(
        r"(postgresql|lambdadb)\+psycopg(_async)?|drivers\.psycopg|@host:5432", "", path.read_text()
    )
    assert not re.findall(r"pgconn|psycopg|libpq|5432|sqlstate|SQLSTATE|pg_\w+", text)
