"""The table of docs/frameworks.md, made of what the tests have seen."""

from __future__ import annotations

import ast
import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = EXAMPLES.parent / "docs" / "frameworks.md"
HEAD = """\
| framework | result | sessions kept | while the database wakes up |
|---|---|---|---|
"""
DEADLINES = {"handler", "invocation", "InvocationMiddleware"}
TABLE = re.compile(r"(?<=<!-- nox -s frameworks -- --write -->\n).*?(?=<!-- end -->)", re.S)


class Table:
    """The rows, in the order of the tests."""

    def __init__(self) -> None:
        self._rows: list[str] = []

    def add(self, framework: str, example: Path, *, sessions: int, answers_503: bool = False) -> None:
        """
        Add a framework that works.

        Args:
            framework: Its name.
            example: The file that has run.
            sessions: How many the server has after the last invocation.
            answers_503: Whether it did, for a cluster that did not wake up in time.
        """
        uses = uses_of_lambdadb(example)
        lines = len(uses)
        works = f"works with {lines} line{'s' * (lines > 1)}" if lines else "works unchanged"
        waits = "waits, up to the deadline" if DEADLINES & set().union(*uses.values()) else "waits"
        resume = "waits, then answers 503" if answers_503 else waits
        path = example.relative_to(EXAMPLES).as_posix()
        link = f"[{framework}](../examples/{path})"
        self._rows.append(f"| {link} | {works} | {sessions} | {resume} |\n")

    def render(self) -> str:
        return HEAD + "".join(self._rows)


def uses_of_lambdadb(example: Path) -> dict[int, set[str]]:
    """
    Return the lines of an example that name lambdadb, each with the names: imports, and their uses.

    A call of `create_engine` is not counted, because a program without lambdadb has one too.
    """
    tree = ast.parse(example.read_text())
    imports = {
        node.lineno: {alias.name for alias in node.names}
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lambdadb")
    }
    names = set().union(*imports.values()) - {"create_engine", "create_async_engine"}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names]
    return {**{node.lineno: {node.id} for node in uses}, **imports}


def read_page() -> str:
    """Return the table that the page has."""
    found = TABLE.search(PAGE.read_text())
    assert found, PAGE
    return found[0]


def write_page(table: Table) -> None:
    """Renew the page's table."""
    PAGE.write_text(TABLE.sub(lambda _: table.render(), PAGE.read_text()))
