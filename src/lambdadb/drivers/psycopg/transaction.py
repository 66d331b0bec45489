"""
Transactions whose outcome can be asked for after their connection is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import psycopg
import sqlalchemy
from psycopg import pq
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lambdadb.drivers.base import Meaning, Outcome
from lambdadb.drivers.psycopg.connection import AnyConnection, StatementTimeout, to_out_of_time
from lambdadb.drivers.psycopg.simple_query import ask


@dataclass(repr=False, eq=False)
class TransactionHandle:
    """A transaction, and what identifies it to the server when its connection is lost."""

    connection: AnyConnection
    id: str
    """Its `xid8`; empty if it is read-only."""
    backend: int
    """The process id of its session."""
    incarnation: str
    """When the server, or its shared memory, last started: another one may reuse `xid`."""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came."""
        return self.connection.commit_state

    @property
    def is_begun(self) -> bool:
        """Whether it has not been ended, well or not."""
        ended = (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)
        return self.connection.pgconn.transaction_status not in ended

    @property
    def is_open(self) -> bool:
        """Whether it is still the connection's, and nothing in it has failed."""
        return bool(self.connection.pgconn.transaction_status == pq.TransactionStatus.INTRANS)


# pg_stat_bgwriter is reset by every crash recovery, also by one that the postmaster survived, whose
# start time then stays the same (PostgreSQL, src/backend/utils/activity/pgstat.c).
_WHO = (
    "SELECT pg_current_xact_id()::text, pg_backend_pid()::text, pg_postmaster_start_time()::text"
    " || ' ' || (SELECT stats_reset FROM pg_stat_bgwriter)::text"
)


def begin(connection: sqlalchemy.Connection) -> TransactionHandle:
    """
    Begin a transaction whose fate can be asked for later.

    psycopg, finding the transaction open, sends no BEGIN of its own.

    **Costs:** one round trip, BEGIN's own.
    """
    driver: AnyConnection = connection.connection.driver_connection  # type: ignore[assignment]
    driver.commit_state = "none"
    begin = "BEGIN"
    if driver.isolation_level is not None:
        begin += f" ISOLATION LEVEL {driver.isolation_level.name.replace('_', ' ')}"
    begin += " READ ONLY" if driver.read_only else f"; {_WHO}"
    try:
        rows = ask(driver, begin)
    except StatementTimeout as error:
        if driver.closed:
            connection.invalidate(error)
        raise to_out_of_time(error) from error
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        raise DBAPIError.instance(
            begin, None, error, psycopg.Error, connection_invalidated=driver.closed
        ) from error
    if driver.read_only:
        return TransactionHandle(driver, "", 0, "")
    ((xid, backend, incarnation),) = rows
    return TransactionHandle(driver, xid or "", int(backend or 0), incarnation or "")


# A transaction id that was never flushed is given out again after a crash. So "committed" proves
# something only in the same incarnation of the server; "aborted" proves it in any, because a
# transaction whose commit survived can never be shown as aborted.
_STATUS = text("""
    SELECT pg_is_in_recovery() AS standby, same, status,
           same AND status = 'in progress' AND EXISTS (
               SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE pid = :backend AND backend_xid = CAST(:xid AS xid8)::xid) AS ended
    FROM (SELECT :incarnation = pg_postmaster_start_time()::text || ' '
                 || (SELECT stats_reset FROM pg_stat_bgwriter)::text AS same) AS server,
         LATERAL (SELECT CASE WHEN same OR CAST(:xid AS xid8) < pg_snapshot_xmax(pg_current_snapshot())
                         THEN pg_xact_status(CAST(:xid AS xid8)) ELSE 'aborted' END AS status) AS found
""")


def ask_outcome(connection: sqlalchemy.Connection, transaction: TransactionHandle) -> Outcome | None:
    """What became of a transaction; None if it is not decided yet, or not known to this node."""
    parameters = {
        "xid": transaction.id,
        "backend": transaction.backend,
        "incarnation": transaction.incarnation,
    }
    answer = connection.execute(_STATUS, parameters).one()
    if answer.standby:
        connection.invalidate()  # not the writer, or not yet: the next connect may find it
        return None
    if answer.same and answer.status == "in progress":
        return None
    if answer.status in ("aborted", "in progress"):
        return "aborted"
    return "committed" if answer.same and answer.status == "committed" else "unknown"


_CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_READ_ONLY = "25006"  # read_only_sql_transaction: among other things, the old writer after a failover


def meaning_of(error: BaseException) -> Meaning:
    """What an error of a statement means for its transaction."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate in _CONFLICTS:
        return "conflict"
    return "not the writer" if sqlstate == _READ_ONLY else "other"
