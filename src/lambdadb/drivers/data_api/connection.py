"""
A DBAPI connection over the Data API. It is open in this process only.

On the server there is a session while a transaction is open, and while a statement runs.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

from lambdadb.deadline import Clock, StatementDeadline
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed, DataApi
from lambdadb.drivers.data_api.cursor import Cursor
from lambdadb.drivers.data_api.dbapi import InvocationClosed, StatementTimeout, UnitEnded
from lambdadb.drivers.data_api.faults import TOO_LARGE, diagnose, find_state, make_error
from lambdadb.drivers.data_api.http import HttpConnection
from lambdadb.drivers.endings import make_invocation_ended, make_out_of_time
from lambdadb.errors import LambdaDBError, TransactionEnded

logger = logging.getLogger("lambdadb")

CALL_LIMIT = 50.0  # seconds; the service ends a call after 45
GIVE_UP = 1.0  # seconds for the rollback of a transaction that is given up
_TRIES = 3  # of a call that has no effect, each after the database has answered

# What begins or ends a transaction. The API has calls for it, and does not notice such statements.
_ENDS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION"
    r"|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_TO_SAVEPOINT = re.compile(r"\s*ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.$@~-]")


class UnitOfWork:
    """The unit of work of `run_transaction` that uses a connection now."""

    id = ""
    """Its transaction's id on the server."""
    is_done = False
    """Whether the unit has returned, so that it may be committed."""
    ended = False
    """Whether its transaction has ended."""


class DataApiConnection:
    """
    A connection.

    Attributes:
        closed: Whether it cannot be used any more.
        transaction_id: The API's id of the open transaction; None if none is open.
    """

    wait_limit: float | None
    """A moment at which every call ends, while connecting and in pings."""
    autocommit = False
    isolation_level: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    commit_state: Literal["none", "sent", "done"] = "none"
    """How far the COMMIT of the current transaction came; `none` also if it was refused."""
    unit: UnitOfWork | None = None
    aborted = False
    """Whether the invocation that used it is over."""
    failed = False
    """Whether a statement of the open transaction has failed. The server takes only a rollback then."""
    wait_until_ready: Callable[[], object]
    """Connects again, which waits for a database that is waking up."""

    def __init__(
        self, api: DataApi, database: str, deadline: StatementDeadline, wait_limit: float | None
    ) -> None:
        self.api = api
        self.database = database
        self.deadline = deadline
        self.wait_limit = wait_limit
        self.closed = False
        self.transaction_id: str | None = None
        self._busy = threading.Lock()
        self._may_be_late = False
        tag = _UNSAFE.sub("_", api.tag or "")
        self._comment = f"/* {tag} */ " if tag else ""

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        return Cursor(self)

    def execute(self, sql: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
        """Execute a statement, in the open transaction or a new one, and return the API's answer."""
        request = {
            "sql": self._comment + sql,
            "parameters": parameters,
            "includeResultMetadata": True,
            "resultSetOptions": {"decimalReturnType": "STRING"},
        }
        answer = self._carry_out("Execute", sql, request)
        if self.failed and _TO_SAVEPOINT.match(sql):
            self.failed = False
        return answer

    def execute_batch(self, sql: str, parameter_sets: list[list[dict[str, Any]]]) -> None:
        """Execute a statement for each set of parameters."""
        request = {"sql": self._comment + sql, "parameterSets": parameter_sets}
        self._carry_out("BatchExecute", sql, request)

    def ask(self, sql: str) -> tuple[str | None, ...]:
        """
        Return the row of one of lambdadb's own questions, whose columns are text.

        It is asked in the open transaction if there is one, else outside of transactions.

        **Costs:** one call.
        """
        request: dict[str, Any] = {"sql": self._comment + sql, "includeResultMetadata": True}
        (record,) = self._send("Execute", request)["records"]
        return tuple(field.get("stringValue") for field in record)

    def _carry_out(self, call: str, sql: str, request: dict[str, Any]) -> dict[str, Any]:
        self._check_usable()
        if _ENDS.match(sql):
            raise dbapi.ProgrammingError(
                "The Data API begins and ends transactions by calls of its own, so the statement was "
                "not sent. Use begin(), commit() and rollback() of SQLAlchemy's connection."
            )
        if self.unit is not None and (self.unit.ended or self.transaction_id is None):
            raise UnitEnded("The unit of work has ended its transaction. The statement was not sent.")
        if self.transaction_id is None and not self.autocommit:
            self._begin()
        return self._send(call, request)

    def begin(self) -> None:
        """Begin a transaction now, if none is open."""
        self._check_usable()
        if self.transaction_id is None:
            self._begin()

    def _begin(self) -> None:
        self.failed, self.commit_state = False, "none"
        # A transaction that was begun without an answer has no locks, and ends after three minutes.
        answer = self._repeat("BeginTransaction", {})
        self.transaction_id = str(answer["transactionId"])
        modes = []
        if self.isolation_level is not None:
            modes.append(f"ISOLATION LEVEL {self.isolation_level}")
        if self.read_only is not None:
            modes.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            modes.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        if modes:
            self._send("Execute", {"sql": f"{self._comment}SET TRANSACTION {', '.join(modes)}"})

    def _send(self, call: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send a statement once; outside of a transaction again if the database was not awake."""
        if self.transaction_id is None:
            return self._repeat(call, request)
        try:
            return self._call(call, {**request, "transactionId": self.transaction_id})
        except StatementTimeout as error:
            self.closed = self.closed or error.sent
            raise
        except CallFailed as failure:
            self._note_failure(failure)
            raise make_error(failure) from failure

    def _note_failure(self, failure: CallFailed) -> None:
        """Notice what the failure of a statement means for its transaction."""
        state = find_state(str(failure))
        if failure.code == "DatabaseErrorException" and state is not None:
            self.failed = True
            self.closed = self.closed or state.startswith(("08", "57P"))
        elif failure.code == "UnsupportedResultException" or TOO_LARGE in str(failure):
            pass  # the statement itself has succeeded
        elif failure.code not in ("ValidationException", "BadRequestException", "RequestTooLarge"):
            self.closed = True  # nobody knows how far the transaction has come

    def _repeat(self, call: str, request: dict[str, Any]) -> dict[str, Any]:
        """
        Send a call that is not part of a transaction.

        Only one that has certainly no effect is sent again, after the database has answered another one.
        A BeginTransaction never has one.
        """
        for number in range(1, _TRIES + 1):
            try:
                return self._call(call, request)
            except CallFailed as failure:
                harmless = call == "BeginTransaction" or failure.effect == "none"
                if number == _TRIES or not harmless or not diagnose(failure).fault.can_pass:
                    raise make_error(failure) from failure
            self.wait_until_ready()
        raise AssertionError("unreachable")

    def _call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Make one call, which ends at the deadline."""
        clock, until, is_limited = self.deadline.clock, *self._end_of_call()
        if not self._busy.acquire(blocking=False):
            raise dbapi.InterfaceError(
                "Another thread is using this connection. Its transaction runs one statement at a time: "
                "give each thread a connection of its own."
            )
        try:
            if name in ("Execute", "BatchExecute", "BeginTransaction"):
                request = {"database": self.database, **request}
            return self.api.call(name, request, clock=clock, until=until)
        except CallFailed as failure:
            if self.aborted and self.commit_state != "sent":
                raise InvocationClosed("the invocation that opened this connection has ended") from None
            if is_limited and failure.effect == "unknown" and clock.now() >= until:
                raise StatementTimeout("no answer came in time", sent=True) from failure
            raise
        except BaseException:  # cancelled, or interrupted: how far the call came is not known
            self.closed = True
            raise
        finally:
            self._busy.release()

    def _end_of_call(self) -> tuple[float, bool]:
        """Return when a call that is sent now ends, and whether the deadline says so."""
        now = self.deadline.clock.now()
        times = self.deadline.times(self.wait_limit)
        if times is None:
            return now + CALL_LIMIT, False
        end = times[1] if self._may_be_late else times[0]
        if now >= end:
            raise StatementTimeout("the statement was not sent", sent=False)
        return (end, True) if end < now + CALL_LIMIT else (now + CALL_LIMIT, False)

    def _check_usable(self) -> None:
        if self.aborted:
            self.closed = True
            raise InvocationClosed("the invocation that opened this connection has ended")
        if self.closed:
            raise dbapi.InterfaceError("The connection is closed.")

    # Ends of transactions

    def commit(self) -> None:
        """Commit, and remember how far it came."""
        self.commit_state = "none"
        if self.unit is not None and (not self.unit.is_done or self.unit.ended):
            raise UnitEnded("The unit of work called commit(). COMMIT was not sent.")
        if self.transaction_id is None:
            return
        self._check_usable()
        if self.failed:
            self.rollback()
            raise dbapi.InternalError(
                "A statement of the transaction had failed, so it was rolled back and not committed."
            )
        self.commit_state = "sent"
        try:
            answer = self._call("CommitTransaction", {"transactionId": self.transaction_id})
        except (StatementTimeout, InvocationClosed) as error:
            if getattr(error, "sent", False):
                self.closed = True
            else:
                self.commit_state = "none"
            raise
        except CallFailed as failure:
            self._commit_failed(failure)
            raise make_error(failure) from failure
        self.transaction_id = None
        if answer.get("transactionStatus") != "Transaction Committed":
            self.commit_state = "none"
            raise dbapi.OperationalError("The server has rolled the transaction back.")
        self.commit_state = "done"

    def _commit_failed(self, failure: CallFailed) -> None:
        """Find out whether COMMIT was refused. If that is not certain, the connection counts as lost."""
        state = find_state(str(failure))
        if failure.code == "DatabaseErrorException" and state and not state.startswith(("08", "57")):
            self.commit_state, self.transaction_id = "none", None  # the server has rolled it back
            return
        self.closed = True
        # A transaction that is not found may have been ended by a call that got no answer.
        if failure.effect == "none" and failure.code != "TransactionNotFoundException" and not state:
            self.commit_state = "none"

    def rollback(self) -> None:
        """
        Roll back, within the reserve if necessary.

        **Costs:** one call; none if no transaction is open.
        """
        if self.unit is not None:
            self.unit.ended = True
        if self.transaction_id is None or self.closed or self.aborted:
            return
        with self.allow_late():
            try:
                self._call("RollbackTransaction", {"transactionId": self.transaction_id})
            except (CallFailed, StatementTimeout, InvocationClosed) as error:
                # The service rolls it back after three minutes without a call.
                logger.info("A rollback over the Data API was not answered: %s", error)
                self.closed = True
                return
        self.transaction_id, self.failed = None, False

    @contextlib.contextmanager
    def allow_late(self) -> Iterator[None]:
        """Ignore the first of the deadline's two moments inside the block."""
        before, self._may_be_late = self._may_be_late, True
        try:
            yield
        finally:
            self._may_be_late = before

    def close(self) -> None:
        """Close the connection. A transaction that is open is rolled back, as far as possible."""
        self.closed = True
        self._give_up(self.api, self.deadline.clock)
        self.api.http.close()

    def terminate(self) -> None:
        """Close the connection where nothing can be awaited."""
        self.closed = True
        self.api.http.close()
        self._give_up(self._second_api(), Clock())

    def abort(self) -> None:
        """End a transaction that another thread may be using. It finds the connection closed."""
        self.aborted = True
        if self._busy.locked():
            self.api.http.shut_down()  # the thread that waits closes it
        else:
            self.api.http.close()
        self._give_up(self._second_api(), Clock())

    def _second_api(self) -> DataApi:
        return replace(self.api, http=HttpConnection(self.api.endpoint.url))

    def _give_up(self, api: DataApi, clock: Clock) -> None:
        """
        Roll back a transaction that is not used any more, in a second at most, if it is open.

        After a COMMIT without an answer too: a COMMIT that did not arrive would leave the locks of the
        transaction for three minutes, and one that was carried out cannot be undone.
        """
        name, self.transaction_id = self.transaction_id, None
        if name is None:
            return
        try:
            api.call(
                "RollbackTransaction", {"transactionId": name}, clock=clock, until=clock.now() + GIVE_UP
            )
        except CallFailed as failure:
            logger.debug("A transaction that was given up was not rolled back: %s", failure)
        finally:
            if api is not self.api:
                api.http.close()


def translate(error: BaseException) -> LambdaDBError | None:
    """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
    if isinstance(error, LambdaDBError):
        return error
    if isinstance(error, UnitEnded):
        return TransactionEnded(str(error))
    if isinstance(error, StatementTimeout):
        return make_out_of_time(str(error), sent=error.sent)
    return make_invocation_ended() if isinstance(error, InvocationClosed) else None
