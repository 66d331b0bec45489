"""
What became of a transaction whose connection was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from lambdadb.deadline import Deadline
from lambdadb.drivers.base import Outcome, Transaction
from lambdadb.errors import CommitInDoubt, LambdaDBError, OutOfTime
from lambdadb.faults import one_line
from lambdadb.retry import conflict_backoff

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import SQLCoreOperations

    from lambdadb.connect.connector import Connector

    IdempotencyKey = tuple[SQLCoreOperations[Any], object]


class _LostAgain(Exception):
    """The connection on which the server was asked was lost too."""


class OutcomeQuestion:
    """The question to the server, on another connection, until it is answered or time is over."""

    def __init__(
        self,
        engine: Engine,
        idempotency_key: IdempotencyKey | None,
        *,
        deadline: Deadline,
        random: Random,
    ) -> None:
        pool: Any = engine.pool
        connector: Connector = pool.connector
        self._engine = engine
        self._driver = connector.driver
        self._clock = connector.clock
        self._idempotency_key = idempotency_key
        self._deadline = deadline
        self._random = random
        self.last_answer: Outcome | None = None
        """The server's last answer; None if it was not asked."""

    def ask_or_doubt(self, transaction: Transaction, error: Exception) -> Outcome:
        """Ask what became of a transaction that may be committed. Raises `CommitInDoubt` if unknown."""
        try:
            outcome = self.ask(transaction)
        except Exception as failure:
            # No error of the question may look like "not committed".
            what = one_line(str(getattr(failure, "orig", failure)))
            raise CommitInDoubt(transaction.id, f"the server could not be asked: {what}") from failure
        if outcome == "unknown":
            raise CommitInDoubt(transaction.id, transaction.doubt) from error
        return outcome

    def ask(self, transaction: Transaction, *, uses_key: bool = True) -> Outcome:
        """
        Ask what became of a transaction. A session that still has it open is ended.

        The row of the key speaks for a transaction whose COMMIT was sent. Without that it may be an
        earlier unit's, and is not looked for (`uses_key`).
        """
        number = 0
        while True:
            with contextlib.suppress(_LostAgain), self._connect_to_ask() as connection:
                outcome = self._driver.ask_outcome(connection, transaction)
                if outcome == "unknown" and uses_key and self._idempotency_key is not None:
                    outcome = self._look_for_key(connection, transaction)
                if outcome is not None:
                    self.last_answer = outcome
                    return outcome
            number += 1
            pause = conflict_backoff(number, self._random)
            if pause >= self._deadline.remaining(self._clock):
                text = f"Time was over before the outcome of transaction {transaction.id} was known."
                raise OutOfTime(text, sent=False)
            self._clock.sleep(pause)

    def _look_for_key(self, connection: Connection, transaction: Transaction) -> Outcome:
        """Look for the row of the idempotency key. It exists exactly if the work is committed."""
        if not self._driver.names_same_tables(connection, transaction):
            return "unknown"  # the name means another table here
        assert self._idempotency_key is not None
        column, value = self._idempotency_key
        # Without LIMIT a session with MySQL's sql_select_limit=0 would find nothing.
        found = connection.execute(select(column).where(column == value).limit(1)).first()
        return "committed" if found is not None else "aborted"

    @contextmanager
    def _connect_to_ask(self) -> Iterator[Connection]:
        """Open a connection to ask the server. Raises `_LostAgain` if it is lost."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except LambdaDBError:
            raise
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise _LostAgain from error
