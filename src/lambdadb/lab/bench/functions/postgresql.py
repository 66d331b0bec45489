"""The experiment's INSERT on PostgreSQL, and a connection of psycopg."""

from __future__ import annotations

from typing import Any

import database
import psycopg

INSERT = (
    "INSERT INTO {table} (content, embedding) "
    "VALUES ({content}, CAST({embedding} AS vector)) RETURNING id"
)


def connect() -> psycopg.Connection[Any]:
    """Open a connection, with a login that is read now."""
    return psycopg.connect(**{**database.parameters(), **database.login()})


def connect_args() -> dict[str, str]:
    """Return what SQLAlchemy has to give psycopg beside the URL."""
    return database.tls()


def new_id(result: Any) -> Any:
    """Return the id of the row, from psycopg's cursor or from SQLAlchemy's result."""
    return result.fetchone()[0]
