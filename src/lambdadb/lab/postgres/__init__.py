"""A real PostgreSQL for tests, demonstrations and the benchmark, without Docker."""

from __future__ import annotations

from lambdadb.lab.postgres.server import Postgres, free_port
from lambdadb.lab.postgres.standby import Standby

__all__ = ["Postgres", "Standby", "free_port"]
