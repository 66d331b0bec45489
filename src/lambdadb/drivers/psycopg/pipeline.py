"""
psycopg's cursors, whose first statement in a transaction takes BEGIN with it: one round trip, not two.

PostgreSQL's JDBC driver has sent BEGIN so for many years (pgjdbc, QueryExecutorImpl.sendQueryPreamble).
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg._cursor_base import BaseCursor
from psycopg._preparing import Prepare
from psycopg._queries import PostgresQuery
from psycopg.abc import Params, PQGen, Query
from psycopg.pq.abc import PGconn, PGresult

from lambdadb.drivers.psycopg.connection import AsyncDeadlineConnection, DeadlineConnection
from lambdadb.drivers.psycopg.unit_of_work import NoticesCommit

_FATAL_ERROR = pq.ExecStatus.FATAL_ERROR
_COPY = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)


class _PipelinedBegin(BaseCursor[Any, Any]):
    """
    A cursor that sends BEGIN and the statement after it together.

    libpq's pipeline mode does that, which ends with each statement here: a statement is still answered
    before the next is sent, and nothing else changes. If BEGIN fails, the server skips the statement.
    """

    __slots__ = ()
    _conn: DeadlineConnection | AsyncDeadlineConnection

    def _execute_gen(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        connection = self._conn
        if not connection.begins:
            yield from super()._execute_gen(query, params, prepare=prepare, binary=binary)
            return
        connection.joining = True
        try:
            yield from self._start_query(query)
        finally:
            connection.joining = False
        statement = self._convert_query(query, params)
        if _several(statement):
            yield from connection._start_query()
            yield from self._maybe_prepare_gen(statement, prepare=prepare, binary=binary)
        else:
            yield from self._begin_and_execute_gen(statement, prepare, binary)
        self._last_query = query
        yield from connection._prepared.maintain_gen(connection)

    def _begin_and_execute_gen(
        self, statement: PostgresQuery, prepare: bool | None, binary: bool | None
    ) -> PQGen[None]:
        """As psycopg's `_maybe_prepare_gen`, after a BEGIN that has not been answered."""
        pgconn, prepared = self._pgconn, self._conn._prepared
        step, name = self._get_prepared(statement, prepare)
        pgconn.enter_pipeline_mode()
        pgconn.send_query_params(self._conn._get_tx_start_command(), None)
        try:
            if step is Prepare.SHOULD:
                self._send_prepare(name, statement)
            if step is Prepare.NO:
                self._execute_send(statement, force_extended=True, binary=binary)
            else:
                self._send_query_prepared(name, statement, binary=binary)
        finally:  # what libpq refuses to send is one matter, that BEGIN is to be answered another
            *before, results = yield from _answers(pgconn, 3 if step is Prepare.SHOULD else 2)
        for preceding in before:
            self._check_results(preceding)
        key = prepared.maybe_add_to_cache(statement, step, name)
        if key is not None:
            prepared.validate(key, step, name, results)
        self._check_results(results)
        self._set_results(results)


class Cursor(NoticesCommit, _PipelinedBegin, psycopg.Cursor[Any]):
    """psycopg's Cursor, which sends BEGIN with a transaction's first statement."""

    __slots__ = ()


class AsyncCursor(NoticesCommit, _PipelinedBegin, psycopg.AsyncCursor[Any]):
    """psycopg's AsyncCursor, which sends BEGIN with a transaction's first statement."""

    __slots__ = ()


def _several(statement: PostgresQuery) -> bool:
    """Whether it may be a text of several statements, which PostgreSQL takes by themselves only."""
    return not statement.params and b";" in statement.query.rstrip(b"; \t\r\n")


def _answers(pgconn: PGconn, count: int) -> PQGen[list[list[PGresult]]]:
    """The answers to `count` messages; ends libpq's pipeline mode."""
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    answers: list[list[PGresult]] = []
    try:
        while len(answers) <= count:  # the last one is the pipeline's end
            answers.append((yield from generators.fetch_many(pgconn)))
    except psycopg.OperationalError:
        # A server that ends a session says why, and only then is the connection lost.
        if all(result.status != _FATAL_ERROR for results in answers for result in results):
            raise
        return answers
    if any(result.status in _COPY for result in answers.pop()):
        pgconn.finish()  # there is no way out of it
    else:
        pgconn.exit_pipeline_mode()
    return answers
