"""
Transactions whose outcome can be asked for after their connection is lost.

MySQL keeps no record of what became of a transaction. Only a row that was written in it proves that it
is committed: that of an idempotency key. And its absence proves the contrary only when the session of
the transaction is gone, because a COMMIT may still be on its way to it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import pymysql
import sqlalchemy
from pymysql.constants import CLIENT
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from lambdadb.drivers.base import Meaning, Outcome
from lambdadb.drivers.mysql_commits import CONFLICTS
from lambdadb.drivers.pymysql.connection import (
    DeadlineConnection,
    InvocationClosed,
    StatementTimeout,
    translate,
)
from lambdadb.drivers.pymysql.unit_of_work import UnitEnded, UnitOfWork, error_number
from lambdadb.errors import InvalidSettings, OutOfTime, TransactionEnded

# LIMIT wins over a session's sql_select_limit, which may be 0.
# Another session may have the same id after a restart of the server, or on another one. The client's
# address, with its port, as the server sees it, tells them apart.
_SESSION = (
    "SELECT ID, HOST, CURRENT_USER(), DATABASE(), @@innodb_read_only"
    " FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID() LIMIT 1"
)
_IS_THERE = (
    "SELECT @@innodb_read_only, CURRENT_USER(), (SELECT COUNT(*)"
    " FROM information_schema.PROCESSLIST WHERE ID = {thread} AND HOST = {host}) LIMIT 1"
)
_NO_SUCH_THREAD = 1094  # ER_NO_SUCH_THREAD
# ER_OPTION_PREVENTS_STATEMENT (--read-only, --innodb-read-only, among others), ER_READ_ONLY_MODE
_PREVENTED, _READ_ONLY_MODE = 1290, 1836


@dataclass(repr=False, eq=False)
class TransactionHandle:
    """A transaction, and what identifies its session to the server."""

    connection: DeadlineConnection
    unit: UnitOfWork
    thread: int
    host: str
    user: str
    database: str | None
    takes_writes: bool

    doubt = (
        "MySQL keeps no record of it. With an idempotency_key lambdadb looks for the key's row after "
        "the session is gone"
    )
    """Why an unknown outcome is not known."""
    may_be_committed_apart = False  # a text of several statements is one that may commit

    @property
    def id(self) -> str:
        """The id of its session; empty on a reader, where nothing can be written."""
        return str(self.thread) if self.takes_writes else ""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came."""
        return self.connection.commit_state

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone."""
        return not self.connection.open

    @property
    def committed_by_unit(self) -> bool | None:
        """Whether a statement of the unit has committed it; None if that was not proven so far."""
        return self.unit.committed or (None if self.unit.may_have_committed else False)

    @property
    def may_be_committed_by_unit(self) -> bool:
        """Whether a statement that may commit, such as CALL, was sent, and its effect is not known."""
        return self.committed_by_unit is None

    def allow_commit(self) -> None:
        """The unit of work has returned: the next COMMIT is sent; raises `UnitEnded` if it is over."""
        if not self.is_lost:
            self.connection.prove_open()
        if self.unit.ended or self.unit.conflict is not None or self.is_lost:
            raise UnitEnded("The unit of work returned from a transaction that had failed or ended.")
        self.unit.is_done = True

    def leave(self) -> None:
        """The unit of work is over: its connection may begin transactions again."""
        with contextlib.suppress(pymysql.Error):  # lost: then the server rolls back
            self.connection.rollback()
        self.connection.unit = None


def begin(connection: sqlalchemy.Connection) -> TransactionHandle:
    """
    Begin a transaction, and ask what its session is called.

    With `autocommit=0` the first statement begins a transaction, so no BEGIN is sent.

    Raises:
        InvalidSettings: The connection was made by somebody else.

    **Costs:** one round trip; one more to begin it in autocommit.
    """
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, DeadlineConnection):
        raise InvalidSettings(
            f"A do_connect listener made this connection ({type(driver).__name__}), so that "
            "run_transaction cannot see how far a COMMIT came. Let the listener change the "
            "parameters and return None, or do without run_transaction."
        )
    driver.commit_state = "none"
    ((thread, host, user, database, read_only),) = _ask(connection, _SESSION)
    if driver.get_autocommit():
        _do(connection, driver.begin)
    several = bool(driver.client_flag & CLIENT.MULTI_STATEMENTS)
    unit = driver.unit = UnitOfWork(several_statements=several)
    return TransactionHandle(driver, unit, thread, host, user, database, not read_only)


def ask_outcome(connection: sqlalchemy.Connection, transaction: TransactionHandle) -> Outcome | None:
    """
    End the session of a transaction, and say what became of the transaction; None while it is there.

    A user without the privilege PROCESS sees its own sessions only. So if this is another user than that
    of the transaction, a session that is not seen may be there.

    **Costs:** one round trip; one more to end the session.
    """
    if not transaction.is_lost:
        return "unknown"  # it was rolled back, and may have been committed by the unit before
    driver: Any = connection.connection.driver_connection
    question = _IS_THERE.format(thread=transaction.thread, host=driver.escape(transaction.host))
    ((read_only, user, there),) = _ask(connection, question)
    if read_only:
        connection.invalidate()  # not the writer, or not yet: the next connect may find it
        return None
    if there:
        try:
            _ask(connection, f"KILL {transaction.thread}")
        except DBAPIError as error:
            if error_number(error.orig or error) != _NO_SUCH_THREAD:
                raise
        return None
    if user != transaction.user:
        return None
    may_be_committed = transaction.commit_state == "sent" or transaction.may_be_committed_by_unit
    return "unknown" if may_be_committed else "aborted"


def names_same_tables(connection: sqlalchemy.Connection, transaction: TransactionHandle) -> bool:
    """
    Whether a table's name leads to the same table here as where the transaction began.

    **Costs:** one round trip.
    """
    return _ask(connection, "SELECT DATABASE() LIMIT 1") == [(transaction.database,)]


def meaning_of(error: BaseException, transaction: TransactionHandle | None = None) -> Meaning:
    """What an error of a statement means for its transaction."""
    original = error.orig if isinstance(error, DBAPIError) else error
    lost = transaction is not None and transaction.is_lost
    if isinstance(original, (OutOfTime, StatementTimeout)):
        unanswered = original.sent and transaction is not None and transaction.may_be_committed_by_unit
        return "unanswered commit" if unanswered else "out of time"
    if isinstance(original, (TransactionEnded, UnitEnded)):
        return "ended"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    if isinstance(error, PendingRollbackError) and lost:
        return "lost"  # SQLAlchemy could not roll a savepoint back, and hides the loss itself
    if not isinstance(original, pymysql.Error) or isinstance(original, InvocationClosed):
        return "other"
    number = error_number(original)
    if number in CONFLICTS:
        return "conflict"
    if number == _READ_ONLY_MODE or (number == _PREVENTED and "read" in str(original).lower()):
        return "not the writer"
    return "lost" if lost else "other"


def _ask(connection: sqlalchemy.Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; an error is what SQLAlchemy would have made of it."""
    driver: Any = connection.connection.driver_connection
    rows: list[tuple[Any, ...]] = _do(connection, lambda: driver.ask(query))
    return rows


def _do(connection: sqlalchemy.Connection, act: Any) -> Any:
    driver: Any = connection.connection.driver_connection
    try:
        return act()
    except pymysql.Error as error:
        lost = not driver.open
        if lost:
            connection.invalidate(error)
        if (named := translate(error)) is not None:
            raise named from error
        raise DBAPIError.instance(
            None, None, error, pymysql.Error, connection_invalidated=lost
        ) from error
