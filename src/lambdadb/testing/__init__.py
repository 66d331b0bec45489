"""
What the fixtures of pytest's plugin are made of. `docs/testing.md` lists the fixtures.

The plugin itself is `pytest_lambdadb`, outside of this package: pytest imports it in every run, also
where no test uses lambdadb.
"""

from __future__ import annotations

from lambdadb.lab import LabError
from lambdadb.lab.context import LambdaContext
from lambdadb.testing.cluster import AuroraCluster
from lambdadb.testing.databases import Database, Databases, open_postgres
from lambdadb.testing.invocations import Invoke
from lambdadb.testing.sessions import Session, Sessions

__all__ = [
    "AuroraCluster",
    "Database",
    "Databases",
    "Invoke",
    "LabError",
    "LambdaContext",
    "Session",
    "Sessions",
    "open_postgres",
]
