"""
What the fixtures of pytest's plugin are made of. `docs/testing.md` lists the fixtures.

The plugin itself is `pytest_lambdadb`, outside of this package: pytest imports it in every run, also
where no test uses lambdadb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambdadb.lab import LabError
from lambdadb.lab.context import LambdaContext
from lambdadb.testing.cluster import AuroraCluster
from lambdadb.testing.databases import Database, Databases, open_postgres
from lambdadb.testing.invocations import Invoke
from lambdadb.testing.sessions import Session, Sessions
from lambdadb.testing.spans import SpanRecorder
from lambdadb.testing.virtual_time import VirtualTime, no_waiting

if TYPE_CHECKING:
    from lambdadb.testing.mysql import MariaDBDatabase

__all__ = [
    "AuroraCluster",
    "Database",
    "Databases",
    "Invoke",
    "LabError",
    "LambdaContext",
    "MariaDBDatabase",
    "Session",
    "Sessions",
    "SpanRecorder",
    "VirtualTime",
    "no_waiting",
    "open_postgres",
]


def __getattr__(name: str) -> Any:
    if name == "MariaDBDatabase":
        from lambdadb.testing.mysql import MariaDBDatabase  # needs the extra mysql

        return MariaDBDatabase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
