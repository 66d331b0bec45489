"""
psycopg's cursors, which send BEGIN with a transaction's first statement. This saves a round trip.

psycopg sends BEGIN, waits for the answer, and then sends the statement. The answer is not needed before
the statement is sent: if BEGIN fails, the server does not execute the statement. PostgreSQL's
JDBC driver has sent both together for many years (pgjdbc, QueryExecutorImpl.sendQueryPreamble).

Both are sent by the protocol that psycopg would use for the statement, so that the server does with it
exactly what it would do otherwise:

- A statement without parameters is sent with the simple protocol, as one text: BEGIN, a semicolon, the
  statement. PostgreSQL parses the whole text first. If it cannot, nothing of it was executed, no
  transaction is open, and both are sent once more in psycopg's way, which leaves the failed transaction
  that the caller of psycopg expects. The same is done for a text without a statement in it.
  An engine with a deadline function (deadline_function.py) sends its call between the two.
- All others are sent with the extended protocol, which takes one statement at a time. libpq's pipeline
  mode sends the messages before it reads an answer. The mode ends with the statement. If BEGIN
  fails, the server skips the statement.

In both cases the statement is answered before `execute()` returns. docs/differences.md lists the
remaining differences from psycopg.

This module is the only one that calls methods of psycopg that are not public: there is no other way to
send something before a statement without waiting for its answer. `find_missing()` checks them when an
engine is made. If one is missing, the engine uses psycopg's own cursors, which cost the round trip.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import Params, PQGen, Query
from psycopg.pq.abc import PGconn, PGresult

from lambdadb.drivers.psycopg.connection import AnyConnection
from lambdadb.drivers.psycopg.unit_of_work import QUESTION, NoticesCommit

_FATAL_ERROR = pq.ExecStatus.FATAL_ERROR
_COPY = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)
_QUERY_CANCELED = b"57014"

# What is used of psycopg that is not public: methods with the arguments passed to them, and attributes.
_CURSOR_METHODS: dict[str, tuple[str, ...]] = {
    "_check_results": ("results",),
    "_convert_query": ("query", "params"),
    "_execute_gen": ("query", "params", "prepare", "binary"),
    "_execute_send": ("query", "force_extended", "binary"),
    "_get_prepared": ("pgq", "prepare"),
    "_maybe_prepare_gen": ("pgq", "prepare", "binary"),
    "_send_prepare": ("name", "query"),
    "_send_query_prepared": ("name", "pgq", "binary"),
    "_set_results": ("results",),
    "_start_query": ("query",),
}
_CURSOR_ATTRIBUTES = ("_last_query", "_query")
_CONNECTION_METHODS: dict[str, tuple[str, ...]] = {"_start_query": ()}
_PREPARED_METHODS: dict[str, tuple[str, ...]] = {
    "maintain_gen": ("conn",),
    "maybe_add_to_cache": ("query", "prep", "name"),
    "validate": ("key", "prep", "name", "results"),
}


def find_missing() -> list[str]:
    """Return the names that this module uses and the installed psycopg does not have."""
    try:
        from psycopg._preparing import Prepare, PrepareManager
    except ImportError as error:
        return [str(error)]
    missing = [name for name in ("NO", "SHOULD") if name not in Prepare.__members__]
    for owner, methods in (
        (psycopg.Cursor, _CURSOR_METHODS),
        (psycopg.AsyncCursor, _CURSOR_METHODS),
        (psycopg.BaseConnection, _CONNECTION_METHODS),
        (PrepareManager, _PREPARED_METHODS),
    ):
        missing += [f"{owner.__name__}.{n}" for n, ps in methods.items() if not _takes(owner, n, ps)]
    missing += [f"Cursor.{n}" for n in _CURSOR_ATTRIBUTES if not hasattr(psycopg.Cursor, n)]
    if "_prepared" not in psycopg.BaseConnection.__init__.__code__.co_names:
        missing.append("BaseConnection._prepared")
    return missing


def _takes(owner: type[Any], name: str, parameters: tuple[str, ...]) -> bool:
    """Whether the method exists and has the parameters."""
    code = getattr(getattr(owner, name, None), "__code__", None)
    if code is None:
        return False
    return set(parameters) <= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


class _PipelinedBegin:
    """A cursor that sends BEGIN and the statement after it together."""

    __slots__ = ()

    def _execute_gen(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        cursor: Any = self
        connection: AnyConnection = cursor.connection
        unit = connection.unit
        if not connection.begins or (unit is not None and not unit.is_unsent):
            yield from super()._execute_gen(query, params, prepare=prepare, binary=binary)  # type: ignore[misc]
            return
        connection.begin_is_deferred = True
        try:
            yield from cursor._start_query(query)
        finally:
            connection.begin_is_deferred = False
        try:
            statement = cursor._convert_query(query, params)
        except BaseException:
            yield from connection._start_query()  # psycopg has begun the transaction by then
            raise
        step, name = cursor._get_prepared(statement, prepare)
        in_text = cursor.format == pq.Format.TEXT if binary is None else not binary
        results: list[PGresult] | None = None
        if unit is not None and unit.may_have_sent_commit:
            pass  # it is sent after the answer to BEGIN
        elif step.name == "NO" and in_text and not statement.params:
            results = yield from cursor._execute_simple_gen(statement)
        else:
            results = yield from cursor._execute_extended_gen(statement, step.name, name, binary)
        if results is None:
            if unit is None:
                yield from connection._start_query()
            elif unit.identity is None:
                yield from unit.begin(connection)
            yield from cursor._maybe_prepare_gen(statement, prepare=prepare, binary=binary)
        else:
            key = connection._prepared.maybe_add_to_cache(statement, step, name)
            if key is not None:
                connection._prepared.validate(key, step, name, results)
            cursor._check_results(results)
            cursor._set_results(results)
        cursor._last_query = query
        yield from connection._prepared.maintain_gen(connection)

    def _execute_simple_gen(self: Any, statement: Any) -> PQGen[list[PGresult] | None]:
        """The results of one text, less the preamble's; None if the statement was not executed."""
        preamble = _make_preamble(self.connection)
        self._query = statement
        try:
            # The preamble is one line: an error's LINE is then the same for all first statements.
            self.connection.pgconn.send_query(b";".join(preamble) + b";\n" + statement.query)
        except Exception:
            return None  # psycopg's way ends with psycopg's error
        results = yield from generators.execute(self.connection.pgconn)
        before, results = results[: len(preamble)], results[len(preamble) :]
        if before[-1].status == _FATAL_ERROR:
            canceled = before[-1].error_field(pq.DiagnosticField.SQLSTATE) == _QUERY_CANCELED
            if len(before) > 1 or canceled or self.connection.pgconn.status != pq.ConnStatus.OK:
                self._check_results(before)
            return None
        _learn(self.connection, before)
        return results or None

    def _execute_extended_gen(
        self: Any, statement: Any, step: str, name: bytes, binary: bool | None
    ) -> PQGen[list[PGresult]]:
        """The results of a statement that is sent after a BEGIN that has not been answered."""
        pgconn: PGconn = self.connection.pgconn
        preamble = _make_preamble(self.connection)
        pgconn.enter_pipeline_mode()
        for message in preamble:
            pgconn.send_query_params(message, None)
        try:
            if step == "SHOULD":
                self._send_prepare(name, statement)
            if step == "NO":
                self._execute_send(statement, force_extended=True, binary=binary)
            else:
                self._send_query_prepared(name, statement, binary=binary)
        finally:  # also if libpq refuses to send the statement: BEGIN was sent
            count = len(preamble) + (2 if step == "SHOULD" else 1)
            answers = yield from _read_answers(pgconn, count)
            before, answers = answers[: len(preamble)], answers[len(preamble) :]
            for preceding in before:
                self._check_results(preceding)
            _learn(self.connection, [preceding[0] for preceding in before])
        *prepared, results = answers
        for preceding in prepared:
            self._check_results(preceding)
        return results


class Cursor(NoticesCommit, _PipelinedBegin, psycopg.Cursor[Any]):
    """psycopg's Cursor, which sends BEGIN with a transaction's first statement."""

    __slots__ = ()


class AsyncCursor(NoticesCommit, _PipelinedBegin, psycopg.AsyncCursor[Any]):
    """psycopg's AsyncCursor, which sends BEGIN with a transaction's first statement."""

    __slots__ = ()


def _make_preamble(connection: AnyConnection) -> list[bytes]:
    """
    What is sent before a transaction's first statement.

    BEGIN, the call of the deadline function if there is one, and a unit of work's question.
    """
    if connection.unit is None:
        return connection.begin_commands()
    connection.unit.is_unsent = False
    return [*connection.begin_commands(), QUESTION]


def _learn(connection: AnyConnection, answers: list[PGresult]) -> None:
    """Let a unit of work learn from the answer to its question."""
    if connection.unit is not None:
        connection.unit.learn(connection, answers[-1])


def _read_answers(pgconn: PGconn, count: int) -> PQGen[list[list[PGresult]]]:
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
        pgconn.finish()  # libpq cannot leave COPY in pipeline mode
    else:
        pgconn.exit_pipeline_mode()
    return answers
