"""A real PostgreSQL for tests, demonstrations and the benchmark, without Docker."""

from __future__ import annotations

from lambdadb.lab.postgres.server import Postgres
from lambdadb.lab.postgres.standby import Standby
from lambdadb.lab.server import free_port

__all__ = ["Postgres", "Standby", "free_port"]
