"""
Queries of lambdadb's own, sent as they are: no BEGIN, no parameters, one round trip.
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
    The rows of the last statement of `query` that has any; it is sent as it is, without a BEGIN.

    Raises:
        psycopg.Error: The server's refusal, or the loss of the connection.

    **Costs:** one round trip.
    """
    results: Any = driver.wait(_send(driver, query))
    if isinstance(driver, psycopg.AsyncConnection):
        results = await_only(results)
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    last = next((r for r in reversed(results) if r.status == pq.ExecStatus.TUPLES_OK), None)
    if last is None:
        return []
    values = [[last.get_value(r, c) for c in range(last.nfields)] for r in range(last.ntuples)]
    return [tuple(None if v is None else v.decode() for v in row) for row in values]
