"""
Statements in the form that the Data API takes.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.sql.compiler import SQLCompiler

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]|^[0-9]")


class PlainNames(SQLCompiler):
    """
    Gives every parameter a name of ASCII letters, digits and underscores.

    AWS does not document which names the API takes. A name that begins with a digit could be taken for a
    part of an array's slice.
    """

    def bindparam_string(self, name: str, *arguments: Any, **keywords: Any) -> str:
        """Return a parameter as it is written in the statement."""
        if not keywords.get("escaped_from") and not _PLAIN.fullmatch(name):
            keywords["escaped_from"] = name
            name = _NOT_PLAIN.sub(lambda found: f"_{ord(found[0]):x}_", name)
        return super().bindparam_string(name, *arguments, **keywords)


class PostgresCompiler(PlainNames, PGCompiler):
    """SQLAlchemy's compiler for PostgreSQL, for parameters with a colon."""

    def visit_slice(self, element: Any, **keywords: Any) -> str:
        """Return an array's slice. Without the blanks, its colon and that of a parameter are a cast."""
        start, stop = (self.process(end, **keywords) for end in (element.start, element.stop))
        return f"{start} : {stop}"
