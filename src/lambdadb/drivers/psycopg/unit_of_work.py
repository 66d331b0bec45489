"""
What a connection does differently while a unit of work of `run_transaction` uses it.

If the connection's session is known from an earlier unit, BEGIN and the question for the transaction's
id are sent with the unit's first statement (pipeline.py), which saves a round trip. If the answer to
these is lost, the transaction's id is not known. It is not needed: COMMIT, which carries the id, was not
sent, so nothing is committed. Only the session has to be ended, because it may hold locks, and the
session is known. A first statement that may commit is sent only after the answer to BEGIN. So is
everything that psycopg sends by itself.

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

from lambdadb.drivers.postgresql_identity import BEGUN, EPOCH, SCHEMAS
from lambdadb.drivers.psycopg.simple_query import execute

_FATAL_ERROR = pq.ExecStatus.FATAL_ERROR
_IDLE = pq.TransactionStatus.IDLE

# The cast fails in any other transaction than the unit's own, and the server then skips the COMMIT
# after it. The function is not IMMUTABLE, so the CASE is evaluated when the query runs, not before.
_GUARD = (
    "SELECT CAST(CASE WHEN pg_catalog.pg_current_xact_id_if_assigned()"
    " OPERATOR(pg_catalog.=) CAST('{id}' AS pg_catalog.xid8) THEN '1'"
    " ELSE 'lambdadb: not the transaction that BEGIN opened' END AS pg_catalog.int4);"
)
# What ends a transaction well, also in a text of several statements or in a prepared one. END does so
# at the beginning of a statement only; a comment may stand before it.
_COMMITS = re.compile(r"\b(COMMIT|PREPARE\s+TRANSACTION|EXECUTE)\b|(^|;|\*/|\n)\s*END\b", re.IGNORECASE)
# A text that goes on outside of a transaction. The server commits what follows, by itself, at the end
# of the text (PostgreSQL, "Multiple Statements in a Simple Query").
_GOES_ON = re.compile(
    r"\b(ROLLBACK|ABORT)\b(?!\s+((WORK|TRANSACTION)\s+)?(TO|AND\s+CHAIN)\b)[^;]*;"
    r"\s*(?!(BEGIN|START)\b)\S",
    re.IGNORECASE,
)
_ENDS = (b"COMMIT", b"ROLLBACK")
_REFUSED_BY_GUARD = "22P02"  # invalid_text_representation


QUESTION = f"SELECT {', '.join([*BEGUN, SCHEMAS, *EPOCH])}".encode()
"""Asks, right after BEGIN, what identifies the transaction."""


STANDBY = (
    "the server is a standby, which takes no writes. For a transaction that only reads use "
    "execution_options(postgresql_readonly=True)"
)


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


@dataclass(frozen=True)
class ServerSession:
    """The session of a connection that leads to no other one."""

    server: Server
    backend: str
    """Its process id."""
    began: str
    """When it began, in microseconds. Another session may have the same process id later."""


@dataclass(frozen=True)
class Identity:
    """What identifies a transaction to the server."""

    id: str
    """Its `xid8`; empty on a standby, where nothing can be written."""
    backend: str
    """The process id of its session."""
    schemas: str | None
    server: Server


@dataclass(repr=False, eq=False)
class UnitOfWork:
    """The unit of work that uses a connection now."""

    session: ServerSession | None = None
    """The session whose transaction it is, if the connection leads to no other one."""
    identity: Identity | None = None
    """Its transaction; None until the server has answered to BEGIN."""
    is_unsent: bool = True
    """Whether nothing of it was sent so far, not even BEGIN."""
    is_done: bool = False
    """Whether the unit has returned, so that COMMIT may be sent."""
    committed: bool = False
    """Whether the server has answered to SQL of the unit that committed something."""
    statement: object = ""
    """The statement that the unit gave to a cursor last, as psycopg takes it."""

    @property
    def begins_with_statement(self) -> bool:
        """Whether BEGIN is sent together with the statement that a cursor is about to send."""
        return self.is_unsent and not self.may_have_sent_commit

    def begin_before(self, connection: Any, operation: PQGen[Any]) -> PQGen[Any]:
        """
        Begin before whatever psycopg is about to do, unless it is a cursor's `execute()`.

        That begins the unit itself, with its statement. All else, such as psycopg's `transaction()` and
        `pipeline()` and the change of a setting, has to find the transaction open.
        """
        if not self.is_unsent or self.is_done:
            return operation
        if getattr(operation, "__name__", "") == "_execute_gen":
            return operation
        return self._begin_and_go_on(connection, operation)

    def _begin_and_go_on(self, connection: Any, operation: PQGen[Any]) -> PQGen[Any]:
        yield from self.begin(connection)
        return (yield from operation)

    def begin(self, connection: Any) -> PQGen[None]:
        """Send BEGIN and the question, and wait for both answers."""
        self.is_unsent = False
        text = b";".join([*connection.begin_commands(), QUESTION])
        results = yield from execute(connection.pgconn, text)
        self.learn(connection, results[-1])

    def learn(self, connection: Any, answer: PGresult) -> None:
        """Learn from the answer to the question. Raises `ReadOnlySqlTransaction` on a standby."""
        assert self.session is not None
        values = [answer.get_value(0, column) for column in range(answer.nfields)]
        standby, xid, backend, schemas, *epoch = (v if v is None else v.decode() for v in values)
        server = Server(tuple(epoch), None)
        if server.epoch == self.session.server.epoch:
            server = self.session.server
        if server is not self.session.server or backend != self.session.backend:
            connection.session = None  # something shares sessions, and has given another one
        if standby == "t" and not connection.read_only:
            raise psycopg.errors.ReadOnlySqlTransaction(STANDBY)
        self.identity = Identity(xid or "", backend or "", schemas, server)

    @property
    def may_have_sent_commit(self) -> bool:
        """Whether its last statement may be a COMMIT, alone or among others."""
        return _COMMITS.search(self._text) is not None or self.may_have_gone_on

    @property
    def may_have_gone_on(self) -> bool:
        """Whether its last text may go on after ROLLBACK, outside of a transaction."""
        return _GOES_ON.search(self._text) is not None

    @property
    def _text(self) -> str:
        if isinstance(self.statement, bytes):
            return self.statement.decode(errors="replace")
        return str(self.statement)

    def notice(self, results: list[PGresult], pgconn: PGconn) -> None:
        """Notice what the answers to a text say was committed."""
        tags = [result.command_status for result in results]
        if b"COMMIT" in tags:
            self.committed = True
        elif b"ROLLBACK" in tags and pgconn.transaction_status == _IDLE:
            # An error after ROLLBACK undoes what stands between.
            failed = any(result.status == _FATAL_ERROR for result in results)
            went_on = any(tag not in _ENDS for tag in tags[tags.index(b"ROLLBACK") :])
            self.committed = self.committed or (went_on and not failed)

    def check_statement(self, pgconn: PGconn) -> None:
        """Refuse a statement that would begin another transaction."""
        if self.committed or (not self.is_unsent and pgconn.transaction_status == _IDLE):
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
        if self.identity is None:  # it has sent nothing, so there is nothing to commit
            return
        guard = _GUARD.format(id=self.identity.id) if self.identity.id else ""
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
        if unit is not None:
            unit.notice(results, self.connection.pgconn)
        super()._check_results(results)  # type: ignore[misc]


def _record(connection: Any, statement: object) -> None:
    if connection.unit is not None and not connection.closed:
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
