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

from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

from lambdadb.drivers.postgresql_identity import BEGUN, EPOCH, SCHEMAS
from lambdadb.drivers.psycopg.commits import ends, goes_on, may_commit
from lambdadb.drivers.psycopg.simple_query import execute

_FATAL_ERROR = pq.ExecStatus.FATAL_ERROR
_IDLE = pq.TransactionStatus.IDLE
_IN_TRANSACTION = pq.TransactionStatus.INTRANS
_FAILED = pq.TransactionStatus.INERROR
_OK = pq.ConnStatus.OK
_NO_PIPELINE = pq.PipelineStatus.OFF

# The cast fails in any other transaction than the unit's own, and the server then skips the COMMIT
# after it. The function is not IMMUTABLE, so the CASE is evaluated when the query runs, not before.
_GUARD = (
    "SELECT CAST(CASE WHEN pg_catalog.pg_current_xact_id_if_assigned()"
    " OPERATOR(pg_catalog.=) CAST('{id}' AS pg_catalog.xid8) THEN '1'"
    " ELSE 'lambdadb: not the transaction that BEGIN opened' END AS pg_catalog.int4);"
)
_REFUSED_BY_GUARD = "22P02"  # invalid_text_representation
_ORDINARY = b";SELECT"
# What sends BEGIN itself where it is needed, or needs none: a cursor's execute(), and this module's.
_NEEDS_NO_BEGIN = ("_execute_gen", "begin", "commit")


QUESTION = f"SELECT {', '.join([*BEGUN, SCHEMAS, *EPOCH])}".encode()
"""Asks, right after BEGIN, what identifies the transaction."""


STANDBY = (
    "the server is a standby, which takes no writes. For a transaction that only reads use "
    "execution_options(postgresql_readonly=True)"
)


class UnitEnded(psycopg.OperationalError):
    """A unit of work continued after the end of its transaction, or tried to commit it."""


class Server(NamedTuple):
    """The identity of a server, as far as it is known."""

    epoch: tuple[str | None, ...]
    """When it last started."""
    id_space: tuple[str | None, ...] | None
    """Identifies the sequence of its transaction ids; None if unknown."""

    def gives_same_ids(self, other: Server) -> bool:
        """Whether both assign transaction ids of the same sequence."""
        return self.id_space is not None and self.id_space == other.id_space


class ServerSession(NamedTuple):
    """The session of a connection that leads to no other one."""

    server: Server
    backend: str
    """Its process id."""
    began: str
    """When it began, in microseconds. Another session may have the same process id later."""


class Identity(NamedTuple):
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
    statement: bytes = b""
    """The text that a cursor has sent and that was not answered, or is about to send."""
    had_failed: bool = False
    """Whether the transaction had failed before that text."""
    end_is_known: bool = False
    """Whether this host has seen that the transaction was rolled back."""
    _rolled_back: bool = False
    """Whether a ROLLBACK was answered since the server last said whether a transaction is open."""
    _went_on: bool = False
    """Whether anything else was answered after that."""

    def has_to_begin_before(self, operation: PQGen[Any]) -> bool:
        """
        Whether BEGIN has to be answered before psycopg may do something.

        psycopg's `transaction()` and `pipeline()` and the change of a setting have to find the
        transaction open. A cursor's `execute()` begins the unit itself, with its statement.
        """
        return self.is_unsent and getattr(operation, "__name__", "") not in _NEEDS_NO_BEGIN

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

    def record(self, text: bytes, pgconn: PGconn) -> None:
        """Record a text that a cursor is about to send."""
        if pgconn.status != _OK:
            return
        if pgconn.pipeline_status != _NO_PIPELINE and ends(self.statement):
            # psycopg's pipeline: what ends the transaction may have no answer yet, so it is kept. Of
            # what follows, the ordinary statements count as one.
            text = self.statement.removesuffix(_ORDINARY) + (b";" + text if ends(text) else _ORDINARY)
        self.statement = text
        self.had_failed = pgconn.transaction_status == _FAILED

    @property
    def may_have_sent_commit(self) -> bool:
        """Whether its last text may commit, alone or among other statements."""
        return may_commit(self.statement) or self.may_have_gone_on

    @property
    def may_have_gone_on(self) -> bool:
        """Whether its last text may go on after ROLLBACK, outside of a transaction."""
        return goes_on(self.statement, failed=self.had_failed)

    def notice(self, results: list[PGresult], pgconn: PGconn) -> None:
        """Notice what the answers to a text say was committed."""
        for result in results:
            if result.command_status == b"COMMIT":
                self.committed = True
            elif result.command_status == b"ROLLBACK":
                self._rolled_back, self._went_on = True, False
            else:  # an error undoes what followed ROLLBACK in the same text
                self._went_on = self._rolled_back and result.status != _FATAL_ERROR
        self.look(pgconn)

    def look(self, pgconn: PGconn) -> None:
        """Look whether the server has answered everything, and has left the transaction."""
        status = pgconn.transaction_status
        if pgconn.pipeline_status != _NO_PIPELINE or status not in (_IDLE, _IN_TRANSACTION, _FAILED):
            return
        self.statement = b""
        if status == _IDLE and self._rolled_back:
            self.end_is_known = True
            self.committed = self.committed or self._went_on
        self._rolled_back = self._went_on = False

    def roll_back(self, pgconn: PGconn) -> None:
        """The unit, or somebody for it, calls `rollback()`: nothing of it is sent after that."""
        self.look(pgconn)
        self.is_unsent = False
        self.end_is_known = self.end_is_known or pgconn.transaction_status != _IDLE

    def check_statement(self, pgconn: PGconn) -> None:
        """Refuse a statement that would begin another transaction."""
        self.look(pgconn)
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
        if self.is_unsent:  # there is nothing to commit
            self.is_unsent = False
            return
        if self.identity is None:
            raise UnitEnded("The transaction of the unit of work could not begin.")
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

    def _convert_query(self: Any, *arguments: Any, **keywords: Any) -> Any:
        statement = super()._convert_query(*arguments, **keywords)  # type: ignore[misc]
        unit: UnitOfWork | None = self.connection.unit
        if unit is not None:
            unit.record(statement.query, self.connection.pgconn)
        return statement

    def _check_results(self: Any, results: list[PGresult]) -> None:
        unit: UnitOfWork | None = self.connection.unit
        if unit is not None:
            unit.notice(results, self.connection.pgconn)
        super()._check_results(results)  # type: ignore[misc]


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
