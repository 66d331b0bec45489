"""
lambdadb's own queries, which are sent without BEGIN and without parameters in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from lambdadb.drivers.psycopg.connection import AnyConnection


def execute(pgconn: PGconn, query: bytes) -> PQGen[list[PGresult]]:
    """Send a text of statements, and return their results; raises the first error among them."""
    pgconn.send_query(query)
    results: list[PGresult] = yield from generators.execute(pgconn)
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    return results


def ask(driver: AnyConnection, query: str) -> list[tuple[str | None, ...]]:
    """
    Send `query`, without a BEGIN, and return the rows of its last statement that returns rows.

    Raises:
        psycopg.Error: The server refused a statement, or the connection was lost.

    **Costs:** one round trip.
    """
    results: Any = driver.wait(execute(driver.pgconn, query.encode()))
    if isinstance(driver, psycopg.AsyncConnection):
        results = await_only(results)
    for last in reversed(results):
        if last.status == pq.ExecStatus.TUPLES_OK:
            values = [[last.get_value(r, c) for c in range(last.nfields)] for r in range(last.ntuples)]
            return [tuple(None if v is None else v.decode() for v in row) for row in values]
    return []
