"""
Transactions whose outcome can be asked for after their connection is lost.

A session's settings must not change what these queries mean: each name in them is qualified, no
literal has a backslash, moments are compared as numbers, and questions are asked in a transaction whose
modes are given. They are sent as text with nothing but digits filled in.
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
from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
    InvocationClosed,
    StatementTimeout,
    translate,
)
from lambdadb.drivers.psycopg.simple_query import ask
from lambdadb.drivers.psycopg.unit_of_work import NoticesCommit, Server, UnitEnded, UnitOfWork
from lambdadb.errors import InvalidSettings, OutOfTime, TransactionEnded

# Its id is asked for in READ ONLY transactions too: NOTIFY and temporary tables are possible in them.
_BEGUN = (
    "pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL"
    " ELSE pg_catalog.pg_current_xact_id() END, pg_catalog.pg_backend_pid()"
)
# The schemas in which tables without a schema are looked up.
_SCHEMAS = "pg_catalog.current_schemas(false)"
# When the server, or its shared memory, last started. pg_stat_bgwriter is reset by each crash recovery,
# also by one that the postmaster survived, whose start time then stays the same (PostgreSQL,
# src/backend/utils/activity/pgstat.c).
_EPOCH = "".join(
    f", CAST(EXTRACT(epoch FROM {moment}) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)"
    for moment in (
        "pg_catalog.pg_postmaster_start_time()",
        "(SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter)",
    )
)
# What transaction ids belong to: the system, its timeline (the first digits of a WAL file's name), and
# the server's address, since a clone of the storage may have the same system and timeline.
_ID_SPACE = (
    ", (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
    " CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL"
    " ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,"
    " pg_catalog.inet_server_addr(), pg_catalog.inet_server_port()"
)
# A transaction at or above the snapshot's end is not decided, or its id was never given out here, for
# which pg_xact_status would raise an error.
_STATUS = (
    ", CASE WHEN CAST('{id}' AS pg_catalog.xid8)"
    " OPERATOR(pg_catalog.<) pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
    " THEN pg_catalog.pg_xact_status(CAST('{id}' AS pg_catalog.xid8)) ELSE 'in progress' END"
)
_IS_STANDBY = "SELECT pg_catalog.pg_is_in_recovery()"
_QUESTION = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE"
# Another role than the session's own, left by an earlier SET ROLE, may neither see nor end it.
# backend_xid has 32 bits, the id 64: the process id and the epoch, compared before, leave no other.
_END_SESSION = (
    "SET LOCAL ROLE NONE; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE pid OPERATOR(pg_catalog.=) {backend}"
    " AND backend_xid OPERATOR(pg_catalog.=) CAST(CAST('{id}' AS pg_catalog.xid8) AS pg_catalog.xid)"
)
_OUTCOMES: dict[str | None, Outcome] = {"committed": "committed", "aborted": "aborted"}
_CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_READ_ONLY = "25006"  # read_only_sql_transaction: among other things, the old writer after a failover
_ENDED = (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)
# undefined_function, insufficient_privilege, feature_not_supported
_UNAVAILABLE = frozenset({"42883", "42501", "0A000"})


@dataclass(repr=False, eq=False)
class TransactionHandle:
    """A transaction, and what identifies it to the server when its connection is lost."""

    connection: AnyConnection
    unit: UnitOfWork
    backend: str
    """The process id of its session."""
    server: Server
    schemas: str | None

    doubt = "the server has restarted, or another one has answered: its answer proves nothing"
    """Why an unknown outcome is not known."""

    @property
    def id(self) -> str:
        """Its `xid8`; empty on a standby, where nothing can be written."""
        return self.unit.id

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
        if self.unit.committed:
            return True
        return False if issubclass(self.connection.cursor_factory, NoticesCommit) else None

    @property
    def may_be_committed_by_unit(self) -> bool:
        """Whether a COMMIT that the unit sent as SQL may be done, and its answer was not seen."""
        return self.committed_by_unit is None or (self.is_lost and self.unit.may_have_sent_commit)

    def allow_commit(self) -> None:
        """The unit of work has returned: the next COMMIT is sent; raises `UnitEnded` if it is over."""
        in_transaction = self.connection.pgconn.transaction_status == pq.TransactionStatus.INTRANS
        if not in_transaction or self.unit.committed:
            raise UnitEnded("The unit of work returned from a transaction that had failed or ended.")
        self.unit.is_done = True

    def leave(self) -> None:
        """The unit of work is over: its connection may begin transactions again."""
        connection = self.connection
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

        **Costs:** one round trip, BEGIN's own.
        """
        driver: Any = connection.connection.driver_connection
        if not isinstance(driver, (DeadlineConnection, AsyncDeadlineConnection)):
            raise InvalidSettings(
                f"A do_connect listener made this connection ({type(driver).__name__}), so that "
                "run_transaction cannot see how far a COMMIT came. Let the listener change the "
                "parameters and return None, or do without run_transaction."
            )
        driver.commit_state = "none"
        values, server = self._ask_server(connection, _begin_command(driver), f"{_BEGUN}, {_SCHEMAS}")
        standby, xid, backend, schemas = values
        if standby == "t" and not driver.read_only:
            raise _leave_standby(connection)
        unit = driver.unit = UnitOfWork(xid or "")
        return TransactionHandle(driver, unit, backend or "", server, schemas)

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
        wanted = f"pg_catalog.pg_is_in_recovery(){_STATUS.format(id=transaction.id)}"
        (standby, status), server = self._ask_server(connection, _QUESTION, wanted)
        if standby == "t":
            connection.invalidate()  # not the writer, or not yet: the next connect may find it
            return None
        if server.epoch == transaction.server.epoch:
            if status == "in progress":
                session = {"backend": transaction.backend, "id": transaction.id}
                _ask(connection, _END_SESSION.format(**session))
                return None
            return _OUTCOMES.get(status, "unknown")
        if server.gives_same_ids(transaction.server) and status in ("aborted", "in progress"):
            return "aborted"
        return "unknown"

    def names_same_tables(
        self, connection: sqlalchemy.Connection, transaction: TransactionHandle
    ) -> bool:
        """
        Whether a table's name leads to the same table here as where the transaction began.

        **Costs:** one round trip.
        """
        return _ask(connection, f"SELECT {_SCHEMAS}") == [(transaction.schemas,)]

    def _ask_server(
        self, connection: sqlalchemy.Connection, begin: str, wanted: str
    ) -> tuple[list[str | None], Server]:
        """
        Begin a transaction and ask a question in one round trip; its values, and which server answered.

        The id space costs the server more than all the rest, so each connection asks for it once.
        Through a pooler the same connection may lead to another server later: that one has another
        epoch, and its id space is not known. Where functions are missing or not allowed, the engine does
        without, and a restart of such a server leaves doubt.
        """
        driver: AnyConnection = connection.connection.driver_connection  # type: ignore[assignment]
        wants_id_space = self._tells_id_space and driver.server is None
        query = f"{begin}; SELECT {wanted}{_EPOCH}"
        try:
            (row,) = _ask(connection, query + _ID_SPACE if wants_id_space else query)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _UNAVAILABLE:
                raise
            # A standby refuses READ WRITE and SERIALIZABLE in the same way.
            if _ask(connection, f"ROLLBACK; {_QUESTION}; {_IS_STANDBY}; ROLLBACK") == [("t",)]:
                raise _leave_standby(connection) from error
            if not wants_id_space:
                raise
            self._tells_id_space = False
            return self._ask_server(connection, begin, wanted)
        values = list(row)
        if wants_id_space:
            *values, system, wal_file, address, port = values
            if wal_file is not None:  # as on a standby
                driver.server = Server(tuple(values[-2:]), (system, wal_file[:8], address, port))
        server = Server(tuple(values[-2:]), None)
        if driver.server is not None and driver.server.epoch == server.epoch:
            server = driver.server
        return values[:-2], server


def meaning_of(error: BaseException, transaction: TransactionHandle | None = None) -> Meaning:
    """What an error of a statement means for its transaction."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, (OutOfTime, StatementTimeout)):
        unanswered = original.sent and transaction is not None and transaction.is_lost
        if unanswered and transaction is not None and transaction.unit.may_have_sent_commit:
            return "unanswered commit"
        return "out of time"
    if isinstance(original, (TransactionEnded, UnitEnded)):
        return "ended"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    if isinstance(error, PendingRollbackError) and transaction is not None and transaction.is_lost:
        return "lost"  # SQLAlchemy could not roll a savepoint back, and hides the loss itself
    if not isinstance(original, psycopg.Error) or isinstance(original, InvocationClosed):
        return "other"
    if original.sqlstate in _CONFLICTS:
        return "conflict"
    if original.sqlstate == _READ_ONLY:
        return "not the writer"
    return "lost" if transaction is not None and transaction.is_lost else "other"


def _leave_standby(connection: sqlalchemy.Connection) -> DBAPIError:
    """Give up a connection to a standby, and the error that says so."""
    connection.invalidate()  # not the writer, or not yet: the next connect may find it
    error = psycopg.errors.ReadOnlySqlTransaction(
        "the server is a standby, which takes no writes. For a transaction that only reads use "
        "execution_options(postgresql_readonly=True)"
    )
    wrapped: Any = DBAPIError.instance("BEGIN", None, error, psycopg.Error, connection_invalidated=True)
    return wrapped  # type: ignore[no-any-return]


def _begin_command(driver: AnyConnection) -> str:
    """The BEGIN that psycopg would send (its `_get_tx_start_command`), from its public attributes."""
    words = ["BEGIN"]
    if driver.isolation_level is not None:
        words.append(f"ISOLATION LEVEL {driver.isolation_level.name.replace('_', ' ')}")
    if driver.read_only is not None:
        words.append("READ ONLY" if driver.read_only else "READ WRITE")
    if driver.deferrable is not None:
        words.append("DEFERRABLE" if driver.deferrable else "NOT DEFERRABLE")
    return " ".join(words)


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
