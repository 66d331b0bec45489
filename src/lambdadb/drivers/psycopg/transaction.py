"""
Transactions whose outcome can be asked for after their connection is lost.

Questions are asked in a transaction whose modes are given. Their SQL is in `postgresql_identity`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
import sqlalchemy
from psycopg import pq
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.util import await_only

from lambdadb.drivers.base import Meaning, Outcome
from lambdadb.drivers.postgresql_identity import (
    BEGUN,
    CONFLICTS,
    DOUBT,
    END_SESSION,
    EPOCH,
    ID_SPACE,
    IS_STANDBY,
    READ_ONLY,
    SCHEMAS,
    SESSION,
    SESSION_BEGUN,
    STATUS,
    TERMINATE,
)
from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
    InvocationClosed,
    StatementTimeout,
    translate,
)
from lambdadb.drivers.psycopg.proxies import has_no_session
from lambdadb.drivers.psycopg.simple_query import ask
from lambdadb.drivers.psycopg.unit_of_work import (
    STANDBY,
    Identity,
    NoticesCommit,
    Server,
    ServerSession,
    UnitEnded,
    UnitOfWork,
)
from lambdadb.errors import InvalidSettings, OutOfTime, TransactionEnded

_QUESTION = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE"
# Another role than the session's own, left by an earlier SET ROLE, may neither see nor end it.
_SESSION_ROLE = "SET LOCAL ROLE NONE"
_OUTCOMES: dict[str | None, Outcome] = {"committed": "committed", "aborted": "aborted"}
_ENDED = (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)
# undefined_function, insufficient_privilege, feature_not_supported
_UNAVAILABLE = frozenset({"42883", "42501", "0A000"})


@dataclass(repr=False, eq=False)
class TransactionHandle:
    """A transaction, and what identifies it to the server when its connection is lost."""

    connection: AnyConnection
    unit: UnitOfWork
    _ended_unseen: bool = False
    """Whether the unit has ended its transaction, and this host does not know how."""

    doubt = DOUBT
    """Why an unknown outcome is not known."""

    @property
    def id(self) -> str:
        """Its `xid8`, or its session until that is known; empty on a standby, which takes no writes."""
        if self.unit.identity is not None:
            return self.unit.identity.id
        return f"in session {self.unit.session.backend}" if self.unit.session else ""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came."""
        return self.connection.commit_state

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone."""
        return self.connection.closed

    @property
    def committed_by_unit(self) -> bool | None:
        """Whether the unit of work sent a COMMIT as SQL; None if this host may not have noticed."""
        if self.unit.identity is None or self.unit.committed:
            return self.unit.committed
        seen = issubclass(self.connection.cursor_factory, NoticesCommit) and not self._ended_unseen
        return False if seen else None

    @property
    def may_be_committed_by_unit(self) -> bool:
        """Whether a COMMIT that the unit sent as SQL may be done, and its answer was not seen."""
        if self.unit.identity is None:
            return False
        return self.committed_by_unit is None or (self.is_lost and self.unit.may_have_sent_commit)

    @property
    def may_be_committed_apart(self) -> bool:
        """Whether a text without an answer may have gone on after a ROLLBACK."""
        unit = self.unit
        unanswered = self.is_lost and unit.identity is not None and not unit.committed
        return unanswered and unit.may_have_gone_on

    def allow_commit(self) -> None:
        """The unit of work has returned: the next COMMIT is sent; raises `UnitEnded` if it is over."""
        unit, pgconn = self.unit, self.connection.pgconn
        unit.look(pgconn)
        in_transaction = pgconn.transaction_status == pq.TransactionStatus.INTRANS
        has_begun = in_transaction and unit.identity is not None
        has_nothing = unit.is_unsent and not self.is_lost
        if not (has_begun or has_nothing) or unit.committed:
            raise UnitEnded("The unit of work returned from a transaction that had failed or ended.")
        unit.is_done = True

    def leave(self) -> None:
        """The unit of work is over: its connection may begin transactions again."""
        connection, unit = self.connection, self.unit
        unit.look(connection.pgconn)
        is_over = connection.pgconn.transaction_status == pq.TransactionStatus.IDLE
        self._ended_unseen = is_over and not (unit.is_unsent or unit.is_done or unit.end_is_known)
        connection.unit = None
        # SQLAlchemy does not roll back where it believes to be in autocommit, nor after a COMMIT that
        # failed, such as one that was refused here.
        if connection.pgconn.transaction_status not in _ENDED:
            with contextlib.suppress(psycopg.Error):  # lost: then the server rolls back
                rolled_back = connection.rollback()
                if rolled_back is not None:
                    await_only(rolled_back)


class Transactions:
    """Begins transactions of one engine, and asks what became of them."""

    def __init__(self) -> None:
        self._tells_id_space = True

    def begin(self, connection: sqlalchemy.Connection) -> TransactionHandle:
        """
        Begin a transaction whose outcome can be asked for later.

        It has the modes that the engine's own BEGIN would have. psycopg, finding it open, sends none.

        Raises:
            InvalidSettings: The connection was made by somebody else.
            DBAPIError: The server's refusal, or the loss of the connection; ReadOnlySqlTransaction on a
                standby, unless the transaction is READ ONLY.

        **Costs:** one round trip, BEGIN's own. None on a connection that has begun one before and
        leads to no other session: then BEGIN is sent with the first statement.
        """
        driver: Any = connection.connection.driver_connection
        if not isinstance(driver, (DeadlineConnection, AsyncDeadlineConnection)):
            raise InvalidSettings(
                f"A do_connect listener made this connection ({type(driver).__name__}), so that "
                "run_transaction cannot see how far a COMMIT came. Let the listener change the "
                "parameters and return None, or do without run_transaction."
            )
        driver.commit_state = "none"
        unit = UnitOfWork(driver.session)
        # A listener to `begin` may have begun the transaction: what it sent belongs to the unit.
        if unit.session is None or driver.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            unit.is_unsent = False
            wanted = ", ".join([*BEGUN, SCHEMAS])
            begin = b"; ".join(driver.begin_commands()).decode()
            values, server = self._ask_server(connection, begin, wanted)
            standby, xid, backend, schemas = values
            if standby == "t" and not driver.read_only:
                raise _leave_standby(connection)
            unit.identity = Identity(xid or "", backend or "", schemas, server)
        driver.unit = unit
        return TransactionHandle(driver, unit)

    def ask_outcome(
        self, connection: sqlalchemy.Connection, transaction: TransactionHandle
    ) -> Outcome | None:
        """
        What became of a transaction; None if it is not decided yet, or not known to this node.

        A session that still has it open is ended. The question's own transaction is left open.

        On the server that began it, and that has not restarted since, each answer proves itself. A
        server that crashed gives out again the ids that it had not yet written down, so that "committed"
        may speak of another transaction. "Aborted" stays certain after a restart: a commit that survived
        is never shown as aborted. Another server may give out the same ids, and its answer proves
        nothing.

        **Costs:** one round trip; one more to end a session.
        """
        began = transaction.unit.identity
        if began is None:
            return self._end_session(connection, transaction)
        wanted = f"{IS_STANDBY}, {STATUS.format(id=began.id)}"
        (standby, status), server = self._ask_server(connection, _QUESTION, wanted)
        if standby == "t":
            connection.invalidate()  # not the writer, or not yet: the next connect may find it
            return None
        if server.epoch == began.server.epoch:
            if status == "in progress":
                end = END_SESSION.format(ended=TERMINATE, backend=began.backend, id=began.id)
                _ask(connection, f"{_SESSION_ROLE}; {end}")
                return None
            return _OUTCOMES.get(status, "unknown")
        if server.gives_same_ids(began.server) and status in ("aborted", "in progress"):
            return "aborted"
        return "unknown"

    def _end_session(
        self, connection: sqlalchemy.Connection, transaction: TransactionHandle
    ) -> Outcome | None:
        """
        End the session of a transaction without a known id; None while it is there.

        COMMIT was not sent, so nothing is committed. On another server the session is not there.
        """
        session = transaction.unit.session
        assert session is not None
        it = SESSION_BEGUN.format(backend=session.backend, began=session.began)
        wanted = f"(SELECT pg_catalog.count(*) {it})"
        (found,), server = self._ask_server(connection, f"{_QUESTION}; {_SESSION_ROLE}", wanted)
        if found == "0" or server.epoch != session.server.epoch:
            return "aborted"
        _ask(connection, f"SELECT {TERMINATE} {it}")
        return None

    def names_same_tables(
        self, connection: sqlalchemy.Connection, transaction: TransactionHandle
    ) -> bool:
        """
        Whether a table's name leads to the same table here as where the transaction began.

        **Costs:** one round trip.
        """
        began = transaction.unit.identity
        return began is not None and _ask(connection, f"SELECT {SCHEMAS}") == [(began.schemas,)]

    def _ask_server(
        self, connection: sqlalchemy.Connection, begin: str, wanted: str
    ) -> tuple[list[str | None], Server]:
        """
        Begin a transaction and ask a question in one round trip; its values, and which server answered.

        The id space costs the server more than all the rest, so each connection asks for it once, and
        with it for its session, which is the login's own unless something shares sessions.
        Through a pooler the same connection may lead to another server later: that one has another
        epoch, and its id space is not known. Where functions are missing or not allowed, the engine does
        without, and a restart of such a server leaves doubt.
        """
        driver: AnyConnection = connection.connection.driver_connection  # type: ignore[assignment]
        wants_id_space = self._tells_id_space and driver.server is None
        query = f"{begin}; SELECT {', '.join([wanted, *EPOCH])}"
        try:
            (row,) = _ask(
                connection, ", ".join([query, *ID_SPACE, *SESSION]) if wants_id_space else query
            )
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _UNAVAILABLE:
                raise
            # A standby refuses READ WRITE and SERIALIZABLE in the same way.
            if _ask(connection, f"ROLLBACK; {_QUESTION}; SELECT {IS_STANDBY}; ROLLBACK") == [("t",)]:
                raise _leave_standby(connection) from error
            if not wants_id_space:
                raise
            self._tells_id_space = False
            return self._ask_server(connection, begin, wanted)
        values = list(row)
        if wants_id_space:
            *values, system, wal_file, address, port, backend, session_began = values
            if wal_file is not None:  # as on a standby
                driver.server = Server(tuple(values[-2:]), (system, wal_file[:8], address, port))
                if backend is not None and session_began is not None:  # hidden after a SET ROLE
                    known = ServerSession(driver.server, backend, session_began)
                    own = driver.proxy == "none" and backend == str(driver.pgconn.backend_pid)
                    driver.session = known if own else None
        server = Server(tuple(values[-2:]), None)
        if driver.server is not None and driver.server.epoch == server.epoch:
            server = driver.server
        return values[:-2], server


def meaning_of(error: BaseException, transaction: TransactionHandle | None = None) -> Meaning:
    """What an error of a statement means for its transaction."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, (OutOfTime, StatementTimeout)):
        if original.sent and transaction is not None and transaction.is_lost:
            unit = transaction.unit
            if unit.identity is not None and unit.may_have_sent_commit:
                return "unanswered commit"
        return "out of time"
    if isinstance(original, (TransactionEnded, UnitEnded)):
        return "ended"
    if has_no_session(original) or has_no_session(error.__cause__):
        return "lost"  # to a proxy: nothing of the transaction was sent
    if isinstance(original, psycopg.Error) and original.sqlstate == READ_ONLY:
        return "not the writer"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    if isinstance(error, PendingRollbackError) and transaction is not None and transaction.is_lost:
        return "lost"  # SQLAlchemy could not roll a savepoint back, and hides the loss itself
    if not isinstance(original, psycopg.Error) or isinstance(original, InvocationClosed):
        return "other"
    if original.sqlstate in CONFLICTS:
        return "conflict"
    return "lost" if transaction is not None and transaction.is_lost else "other"


def _leave_standby(connection: sqlalchemy.Connection) -> DBAPIError:
    """Give up a connection to a standby, and the error that says so."""
    connection.invalidate()  # not the writer, or not yet: the next connect may find it
    error = psycopg.errors.ReadOnlySqlTransaction(STANDBY)
    wrapped: Any = DBAPIError.instance("BEGIN", None, error, psycopg.Error, connection_invalidated=True)
    return wrapped  # type: ignore[no-any-return]


def _ask(connection: sqlalchemy.Connection, query: str) -> list[tuple[str | None, ...]]:
    """The rows of a query; an error is what SQLAlchemy would have made of it."""
    driver: AnyConnection = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        return ask(driver, query)
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        if (named := translate(error)) is not None:
            raise named from error
        raise DBAPIError.instance(
            query, None, error, psycopg.Error, connection_invalidated=driver.closed
        ) from error
