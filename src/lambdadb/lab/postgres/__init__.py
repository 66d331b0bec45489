"""A real PostgreSQL for tests, demonstrations and the benchmark, without Docker."""

from __future__ import annotations

from lambdadb.lab.postgres.server import Postgres, free_port

__all__ = ["Postgres", "free_port"]
