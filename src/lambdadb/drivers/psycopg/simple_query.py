"""
lambdadb's own queries, which are sent without BEGIN and without parameters in one round trip.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult
from sqlalchemy.util import await_only

from lambdadb.drivers.psycopg.connection import AnyConnection


def _send(driver: AnyConnection, query: str) -> PQGen[list[PGresult]]:
    driver.pgconn.send_query(query.encode())
    results: list[PGresult] = yield from generators.execute(driver.pgconn)
    return results


def ask(driver: AnyConnection, query: str) -> list[tuple[str | None, ...]]:
    """
    Send `query`, without a BEGIN, and return the rows of its last statement that returns rows.

    Raises:
        psycopg.Error: The server refused a statement, or the connection was lost.

    **Costs:** one round trip.
    """
    results: Any = driver.wait(_send(driver, query))
    if isinstance(driver, psycopg.AsyncConnection):
        results = await_only(results)
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    for last in reversed(results):
        if last.status == pq.ExecStatus.TUPLES_OK:
            values = [[last.get_value(r, c) for c in range(last.nfields)] for r in range(last.ntuples)]
            return [tuple(None if v is None else v.decode() for v in row) for row in values]
    return []
