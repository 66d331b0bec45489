"""
Transactions whose outcome can be asked for after the answer to a call is lost.

The server's answer proves itself as long as the server has not restarted. After a restart, or on another
server, it proves nothing here: then the idempotency key decides, or nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from lambdadb.drivers import mysql_commits
from lambdadb.drivers.base import Meaning, Outcome
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.connection import DataApiConnection, UnitOfWork
from lambdadb.drivers.data_api.dbapi import InvocationClosed, StatementTimeout, UnitEnded
from lambdadb.drivers.data_api.faults import translate
from lambdadb.drivers.postgresql_identity import (
    BEGUN,
    CONFLICTS,
    DOUBT,
    END_SESSION,
    EPOCH,
    IS_STANDBY,
    READ_ONLY,
    SCHEMAS,
    STATUS,
    TERMINATE,
)
from lambdadb.errors import InvalidSettings, OutOfTime, TransactionEnded

T = TypeVar("T")

_OUTCOMES: dict[str | None, Outcome] = {"committed": "committed", "aborted": "aborted"}


@dataclass(repr=False, eq=False)
class Handle:
    """A transaction of a unit of work."""

    connection: DataApiConnection
    unit: UnitOfWork

    doubt = DOUBT
    # A unit cannot commit by SQL: such statements are not sent, and in an open transaction the server
    # refuses those inside of procedures.
    committed_by_unit = False
    may_be_committed_by_unit = False
    may_be_committed_apart = False

    @property
    def id(self) -> str:
        """Its `xid8`."""
        return self.unit.id

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came."""
        return self.connection.commit_state

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows how far it has come, except the server."""
        return self.connection.closed

    def allow_commit(self) -> None:
        """The unit of work has returned: the next COMMIT is sent; raises `UnitEnded` if it is over."""
        connection = self.connection
        if self.unit.ended or connection.failed or connection.transaction_id is None:
            raise UnitEnded("The unit of work returned from a transaction that had failed or ended.")
        self.unit.is_done = True

    def leave(self) -> None:
        """The unit of work is over: its connection may begin transactions again."""
        self.connection.rollback()
        self.connection.unit = None


@dataclass(repr=False, eq=False)
class TransactionHandle(Handle):
    """A transaction, and what identifies it to PostgreSQL."""

    backend: str
    """The process id of its session."""
    epoch: tuple[str | None, ...]
    """When its server last started."""
    schemas: str | None


def check_driver(connection: sqlalchemy.Connection) -> DataApiConnection:
    """Return the driver's connection; raises `InvalidSettings` if it was made by somebody else."""
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, DataApiConnection):
        raise InvalidSettings(
            f"A do_connect listener made this connection ({type(driver).__name__}), so that "
            "run_transaction cannot see how far a COMMIT came. Let the listener change the "
            "parameters and return None, or do without run_transaction."
        )
    return driver


def begin(connection: sqlalchemy.Connection) -> TransactionHandle:
    """
    Begin a transaction, and ask what identifies it.

    Raises:
        InvalidSettings: The connection was made by somebody else.

    **Costs:** two calls, BeginTransaction and the question.
    """
    driver = check_driver(connection)
    question = _select(*BEGUN, SCHEMAS, *EPOCH)

    def ask() -> tuple[str | None, ...]:
        driver.begin()
        return driver.ask(question)

    standby, xid, backend, schemas, *epoch = translated(connection, ask)
    if standby == "true":
        raise _refuse_standby(connection)
    unit = driver.unit = UnitOfWork()
    unit.id = xid or ""
    return TransactionHandle(driver, unit, backend or "", tuple(epoch), schemas)


def ask_outcome(connection: sqlalchemy.Connection, transaction: TransactionHandle) -> Outcome | None:
    """
    What became of a transaction; None if it is not decided yet.

    A session that still has it open is ended: its COMMIT may be on the way, and can then do nothing.

    **Costs:** one call; one more to end a session.
    """
    driver: Any = connection.connection.driver_connection
    question = _select(IS_STANDBY, STATUS.format(id=transaction.id), *EPOCH)
    standby, status, *epoch = translated(connection, lambda: driver.ask(question))
    if standby == "true":
        connection.invalidate()  # not the writer, or not yet
        return None
    if tuple(epoch) != transaction.epoch:
        return "unknown"
    if status == "in progress":
        ended = f"CAST(pg_catalog.count({TERMINATE}) AS text)"
        end = END_SESSION.format(ended=ended, backend=transaction.backend, id=transaction.id)
        translated(connection, lambda: driver.ask(end))
        return None
    return _OUTCOMES.get(status, "unknown")


def names_same_tables(connection: sqlalchemy.Connection, transaction: TransactionHandle) -> bool:
    """
    Whether a table's name leads to the same table here as where the transaction began.

    **Costs:** one call.
    """
    driver: Any = connection.connection.driver_connection
    (schemas,) = translated(connection, lambda: driver.ask(_select(SCHEMAS)))
    return bool(schemas == transaction.schemas)


def meaning_of(error: BaseException, transaction: Handle | None = None) -> Meaning:
    """What an error of a statement means for its transaction."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, (OutOfTime, StatementTimeout)):
        return "out of time"
    if isinstance(original, (TransactionEnded, UnitEnded)):
        return "ended"
    lost = transaction is not None and transaction.is_lost
    if isinstance(original, dbapi.Error) and original.number is None and original.sqlstate == READ_ONLY:
        return "not the writer"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "lost"
    if isinstance(error, PendingRollbackError) and lost:
        return "lost"  # SQLAlchemy could not roll a savepoint back, and hides the loss itself
    if not isinstance(original, dbapi.Error) or isinstance(original, InvocationClosed):
        return "other"
    if original.number is not None:  # MySQL's, which gives 40001 to more than conflicts
        if original.number in mysql_commits.CONFLICTS:
            return "conflict"
    elif original.sqlstate in CONFLICTS:
        return "conflict"
    return "lost" if lost else "other"


def _select(*expressions: str) -> str:
    """A question whose columns are text: the API has no form for some types of the catalogs."""
    return "SELECT " + ", ".join(f"CAST({one} AS text)" for one in expressions)


def _refuse_standby(connection: sqlalchemy.Connection) -> DBAPIError:
    connection.invalidate()
    error = dbapi.InternalError("the server is a standby, which takes no writes")
    error.sqlstate = READ_ONLY
    wrapped: Any = DBAPIError.instance("BEGIN", None, error, dbapi.Error, connection_invalidated=True)
    return wrapped  # type: ignore[no-any-return]


def translated(connection: sqlalchemy.Connection, act: Callable[[], T]) -> T:
    """Call `act()`; an error is what SQLAlchemy would have made of it."""
    driver: Any = connection.connection.driver_connection
    try:
        return act()
    except dbapi.Error as error:
        lost = driver.closed
        if lost:
            with contextlib.suppress(dbapi.Error):
                connection.invalidate(error)
        if (named := translate(error)) is not None:
            raise named from error
        raise DBAPIError.instance(None, None, error, dbapi.Error, connection_invalidated=lost) from error
