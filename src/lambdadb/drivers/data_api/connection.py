"""
A DBAPI connection over the Data API. It is open in this process only.

On the server there is a session while a transaction is open, and while a statement runs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lambdadb.deadline import Clock, StatementDeadline
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed, DataApi
from lambdadb.drivers.data_api.backends import Backend
from lambdadb.drivers.data_api.calls import Calls
from lambdadb.drivers.data_api.cursor import Cursor
from lambdadb.drivers.data_api.dbapi import InDoubt, InvocationClosed, StatementTimeout, UnitEnded
from lambdadb.drivers.data_api.faults import TOO_LARGE, diagnose, find_number, find_state, make_error
from lambdadb.drivers.data_api.http import HttpConnection
from lambdadb.drivers.data_api.sql import ends_transaction, returns_to_savepoint, selects

logger = logging.getLogger("lambdadb")

GIVE_UP = 1.0  # seconds for the rollback of a transaction that is given up
_TRIES = 3  # of a call that has no effect, each after the database has answered

_UNSAFE = re.compile(r"[^\w.$@~-]")


class UnitOfWork:
    """The unit of work of `run_transaction` that uses a connection now."""

    id = ""
    """Its transaction's id on the server."""
    is_done = False
    """Whether the unit has returned, so that it may be committed."""
    ended = False
    """Whether its transaction has ended."""


class DataApiConnection(Calls):
    """
    A connection.

    Attributes:
        transaction_id: The API's id of the open transaction; None if none is open.
    """

    autocommit = False
    isolation_level: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    unit: UnitOfWork | None = None
    failed = False
    """Whether a statement of the open transaction has failed. The server takes only a rollback then."""
    wait_until_ready: Callable[[], object]
    """Connects again, which waits for a database that is waking up."""

    def __init__(
        self,
        api: DataApi,
        backend: Backend,
        database: str,
        deadline: StatementDeadline,
        wait_limit: float | None,
    ) -> None:
        super().__init__(api, database, deadline, wait_limit)
        self.backend = backend
        self.transaction_id: str | None = None
        self._is_new = False  # whether no statement of the open transaction has been answered
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
        if self.failed and returns_to_savepoint(sql):
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
        if ends_transaction(sql):
            raise dbapi.ProgrammingError(
                "The Data API begins and ends transactions by calls of its own, so the statement was "
                "not sent. Use begin(), commit() and rollback() of SQLAlchemy's connection."
            )
        self._check_transaction(sql)
        if self.transaction_id is None and not self.autocommit:
            self._begin()
        return self._send(call, request)

    def _check_transaction(self, sql: str) -> None:
        """Refuse a statement that would go on after the transaction, or could end a unit's."""
        if self.has_conflict and not returns_to_savepoint(sql):
            raise dbapi.InternalError(
                "An error has rolled the transaction back, such as a deadlock. The statement was not "
                "sent. Roll back, and do the whole transaction again, as run_transaction does."
            )
        if self.unit is None:
            return
        if self.unit.ended or self.transaction_id is None:
            raise UnitEnded("The unit of work has ended its transaction. The statement was not sent.")
        if (words := self.backend.find_commit(sql)) is not None:
            raise UnitEnded(
                f"{words} may commit the transaction of the unit of work. The statement was not sent. "
                "Run it outside of run_transaction."
            )

    @property
    def has_conflict(self) -> bool:
        """Whether an error has ended the transaction, and the server does not refuse what follows."""
        return self.failed and self.backend.has_written is None

    def begin(self) -> None:
        """Begin a transaction now, if none is open."""
        self._check_usable()
        if self.transaction_id is None:
            self._begin()

    def _begin(self, *, again: bool = True) -> None:
        self.failed, self.commit_state = False, "none"
        # A transaction that was begun without an answer has no locks, and ends after three minutes.
        answer = self._repeat("BeginTransaction", {})
        self.transaction_id, self._is_new = str(answer["transactionId"]), True
        modes = []
        if self.isolation_level is not None:
            modes.append(f"ISOLATION LEVEL {self.isolation_level}")
        if self.read_only is not None:
            modes.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            modes.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        if modes:
            sql = f"{self._comment}SET TRANSACTION {', '.join(modes)}"
            self._send("Execute", {"sql": sql}, again=again)
            self._is_new = True

    def _send(self, call: str, request: dict[str, Any], *, again: bool = True) -> dict[str, Any]:
        """Send a statement; a second time only where nothing can be done twice by it."""
        if self.transaction_id is None:
            return self._repeat(call, request)
        try:
            answer = self._call(call, {**request, "transactionId": self.transaction_id})
        except StatementTimeout as error:
            self.closed = self.closed or error.sent
            raise
        except CallFailed as failure:
            if again and self._is_repeatable(failure, request["sql"]):
                return self._send(call, request, again=False)
            self._note_failure(failure)
            if failure.effect == "unknown" and self.backend.find_commit(request["sql"]) is not None:
                raise InDoubt(str(failure)) from failure
            raise make_error(failure) from failure
        self._is_new = False
        return answer

    def _is_repeatable(self, failure: CallFailed, sql: str) -> bool:
        """
        Whether a statement of the open transaction that got no answer may be sent again.

        The first one is, in a new transaction: the old one is never committed. A later one is if it
        reads, and the server says that nothing was written in the transaction, nor by the statement.
        """
        if failure.effect == "none" or failure.code == "StatementTimeoutException" or self.unit:
            return False
        open_one = {"transactionId": self.transaction_id}
        try:
            if self._is_new:
                if self.backend.find_commit(sql) is not None:
                    return False
                self._call("RollbackTransaction", open_one)
                self.transaction_id = None
                self._begin(again=False)
                return True
            question = self.backend.has_written
            if question is None or not selects(sql):
                return False
            answer = self._call("Execute", {"sql": self._comment + question, **open_one})
        except (CallFailed, dbapi.Error) as error:
            logger.info("A statement over the Data API could not be repeated: %s", error)
            return False
        return bool(answer["records"] == [[{"booleanValue": False}]])

    def _note_failure(self, failure: CallFailed) -> None:
        """Notice what the failure of a statement means for its transaction."""
        state = find_state(str(failure))
        if failure.code == "DatabaseErrorException" and state is not None:
            self.failed = self.failed or self.backend.ends_by_error(find_number(str(failure)))
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
        is_begin = call == "BeginTransaction"
        commits = not is_begin and not selects(request["sql"])
        for number in range(1, _TRIES + 1):
            try:
                return self._call(call, request)
            except StatementTimeout as error:
                if error.sent and commits:
                    raise InDoubt(str(error)) from error
                raise
            except CallFailed as failure:
                harmless = is_begin or failure.effect == "none"
                if not harmless and commits:
                    raise InDoubt(str(failure)) from failure
                if number == _TRIES or not harmless or not diagnose(failure).fault.can_pass:
                    raise make_error(failure) from failure
            self.wait_until_ready()
        raise AssertionError("unreachable")

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
            if not getattr(error, "sent", False):
                self.commit_state = "none"
                raise
            self.closed = True
            self._raise_doubt(error)
            raise
        except CallFailed as failure:
            self._commit_failed(failure)
            if self.commit_state == "sent":
                self._raise_doubt(failure)
            raise make_error(failure) from failure
        self.transaction_id = None
        if answer.get("transactionStatus") != "Transaction Committed":
            self.commit_state = "none"
            raise dbapi.OperationalError("The server has rolled the transaction back.")
        self.commit_state = "done"

    def _raise_doubt(self, error: Exception) -> None:
        """Raise that nobody knows the outcome of COMMIT, unless `run_transaction` will ask for it."""
        if self.unit is None:
            raise InDoubt(str(error)) from error

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

    def end_transaction(self, name: str) -> None:
        """
        Roll back a transaction of another connection, unless it has ended.

        Raises:
            OperationalError: It may be open.
        """
        try:
            self._call("RollbackTransaction", {"transactionId": name})
        except CallFailed as failure:
            if failure.code != "TransactionNotFoundException":
                self.closed = True
                raise make_error(failure) from failure

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
