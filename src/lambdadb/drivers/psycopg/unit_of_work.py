"""
What a connection does differently while a unit of work of `run_transaction` uses it.

A unit is one transaction. If it could begin a second one, the question "what became of its
transaction?" would be answered for the first, and half of the work could be lost or done twice. So
nothing of a second transaction is sent, and COMMIT is sent only for the transaction that BEGIN opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

_FATAL_ERROR = pq.ExecStatus.FATAL_ERROR
_IDLE = pq.TransactionStatus.IDLE

# The cast fails in any other transaction than the unit's own, and the server then skips the COMMIT
# after it. The function is not IMMUTABLE, so the CASE is evaluated when the query runs, not before.
_GUARD = (
    "SELECT CAST(CASE WHEN pg_catalog.pg_current_xact_id_if_assigned()"
    " OPERATOR(pg_catalog.=) CAST('{id}' AS pg_catalog.xid8) THEN '1'"
    " ELSE 'lambdadb: not the transaction that BEGIN opened' END AS pg_catalog.int4);"
)
# What ends a transaction well, also in a text of several statements or in a prepared one.
_COMMITS = re.compile(r"\b(COMMIT|END|PREPARE\s+TRANSACTION|EXECUTE)\b", re.IGNORECASE)
_REFUSED_BY_GUARD = "22P02"  # invalid_text_representation


class UnitEnded(psycopg.OperationalError):
    """A unit of work continued after the end of its transaction, or tried to commit it."""


@dataclass(frozen=True)
class Server:
    """The identity of a server, as far as it is known."""

    epoch: tuple[str | None, ...]
    """When it last started."""
    id_space: tuple[str | None, ...] | None
    """Identifies the sequence of its transaction ids; None if unknown."""

    def gives_same_ids(self, other: Server) -> bool:
        """Whether both assign transaction ids of the same sequence."""
        return self.id_space is not None and self.id_space == other.id_space


@dataclass(repr=False, eq=False)
class UnitOfWork:
    """The unit of work that uses a connection now."""

    id: str
    """Its transaction's `xid8`; empty on a standby, where nothing can be written."""
    is_done: bool = False
    """Whether the unit has returned, so that COMMIT may be sent."""
    committed: bool = False
    """Whether the server has answered to a COMMIT that the unit sent as SQL."""
    statement: object = ""
    """The statement that the unit gave to a cursor last, as psycopg takes it."""

    @property
    def may_have_sent_commit(self) -> bool:
        """Whether its last statement may be a COMMIT, alone or among others."""
        text = str(self.statement)
        if isinstance(self.statement, bytes):
            text = self.statement.decode(errors="replace")
        return _COMMITS.search(text) is not None

    def check_statement(self, pgconn: PGconn) -> None:
        """Refuse a statement that would begin another transaction."""
        if self.committed or pgconn.transaction_status == _IDLE:
            raise UnitEnded("The unit of work has ended its transaction. The statement was not sent.")

    def check_commit(self) -> None:
        """Refuse a COMMIT that is not `run_transaction`'s own."""
        if not self.is_done or self.committed:
            raise UnitEnded("The unit of work called commit(). COMMIT was not sent.")

    def commit(self, connection: Any) -> PQGen[None]:
        """
        Send COMMIT, which the server refuses for any other transaction than the unit's own.

        The unit may have ended it without this host's notice (ROLLBACK AND CHAIN, or several statements
        in one text). The check travels with COMMIT: no further round trip. If the answer is lost, then
        only the unit's own transaction can be committed, and it is the one that the server is asked for.
        """
        guard = _GUARD.format(id=self.id) if self.id else ""
        if guard and not issubclass(connection.cursor_factory, NoticesCommit):
            # A COMMIT AND CHAIN may have gone unnoticed, and would answer the question. So COMMIT waits
            # until the check is passed.
            yield from _send(connection.pgconn, guard)
        connection.commit_state = "sent"
        try:
            results = yield from _send(connection.pgconn, f"{guard}COMMIT")
        except UnitEnded:
            connection.commit_state = "none"
            raise
        if results[-1].command_status != b"COMMIT":
            connection.commit_state = "none"
            raise UnitEnded("The server has rolled the unit of work back.")


class NoticesCommit:
    """A cursor that records what its unit of work sends, and each COMMIT that was carried out."""

    __slots__ = ()

    def execute(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """Execute a statement."""
        _record(self.connection, query)
        return super().execute(query, *arguments, **keywords)  # type: ignore[misc]

    def executemany(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """Execute a statement with each set of parameters."""
        _record(self.connection, query)
        return super().executemany(query, *arguments, **keywords)  # type: ignore[misc]

    def stream(self: Any, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """Execute a statement, and give its rows as they come."""
        _record(self.connection, query)
        return super().stream(query, *arguments, **keywords)  # type: ignore[misc]

    def copy(self: Any, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        """Begin COPY."""
        _record(self.connection, statement)
        return super().copy(statement, *arguments, **keywords)  # type: ignore[misc]

    def _check_results(self: Any, results: list[PGresult]) -> None:
        unit: UnitOfWork | None = self.connection.unit
        if unit is not None and any(result.command_status == b"COMMIT" for result in results):
            unit.committed = True
        super()._check_results(results)  # type: ignore[misc]


def _record(connection: Any, statement: object) -> None:
    if connection.unit is not None:
        connection.unit.statement = statement


def is_refusal(error: psycopg.Error) -> bool:
    """
    Whether the error that came for a COMMIT proves that it was not carried out.

    The server's ERROR does. Its FATAL does not: a session that is ended while COMMIT waits for a
    synchronous standby is committed already. Neither does what a pooler says of a server that it lost
    (class 08), nor a lost connection. An answer that libpq cannot read proves nothing either: pgbouncer
    writes its error after the half of the server's answer that it had ("lost synchronization").
    """
    if error.sqlstate is None:  # the driver's own: these it raises before it sends anything
        return isinstance(error, (psycopg.ProgrammingError, psycopg.NotSupportedError))
    severity = error.diag.severity_nonlocalized or error.diag.severity
    return severity == "ERROR" and not error.sqlstate.startswith("08")


def _send(pgconn: PGconn, query: str) -> PQGen[list[PGresult]]:
    pgconn.send_query(query.encode())
    results: list[PGresult] = yield from generators.execute(pgconn)
    for number, result in enumerate(results):
        if result.status == _FATAL_ERROR:
            error = psycopg.errors.error_from_result(result)
            if number == 0 and error.sqlstate == _REFUSED_BY_GUARD:
                raise UnitEnded(
                    "The unit of work has ended its transaction. What it did after that is rolled back."
                )
            raise error
    return results
