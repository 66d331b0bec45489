"""
A unit of work in a transaction, repeated until it is known to be committed exactly once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import DBAPIError

from lambdadb.deadline import Deadline
from lambdadb.drivers.base import Outcome, Transaction
from lambdadb.errors import CommitInDoubt, InvalidSettings, LambdaDBError, OutOfTime, TransactionEnded
from lambdadb.faults import one_line
from lambdadb.pool import GuardedPool
from lambdadb.retry import conflict_backoff, retrying
from lambdadb.tracing.span import Span, Tracer, emit

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker
    from sqlalchemy.sql.elements import SQLCoreOperations

    IdempotencyKey = tuple[SQLCoreOperations[Any], object]
    S = TypeVar("S", bound=Session)

    from lambdadb.connect.connector import Connector

logger = logging.getLogger("lambdadb")

T = TypeVar("T")
P = ParamSpec("P")


@overload
def run_transaction(
    target: Engine, work: Callable[[Connection], T], *, idempotency_key: IdempotencyKey | None = None
) -> T: ...
@overload
def run_transaction(
    target: sessionmaker[S], work: Callable[[S], T], *, idempotency_key: IdempotencyKey | None = None
) -> T: ...
def run_transaction(
    target: Engine | sessionmaker[Any],
    work: Callable[[Any], T],
    *,
    idempotency_key: IdempotencyKey | None = None,
) -> T:
    """
    Call `work` inside a transaction, commit it, and return what it returned.

    `work` is called again, in a new transaction, after a serialization failure, a deadlock, a failover
    to a node that is still read-only, and a connection that was lost before COMMIT. When the answer to
    COMMIT is lost, the server is asked what became of the transaction: it is never guessed.

    So `work` may run several times, and only its last run counts: it must do nothing outside of the
    database that may not be repeated, must take its inputs from its arguments, and must neither commit
    nor swallow a failed statement.

    Args:
        target: An engine of lambdadb (`work` gets a `Connection`) or a `sessionmaker` bound to one
            (`work` gets a `Session`). Its isolation level is kept.
        work: The unit of work.
        idempotency_key: A unique column and the value to insert into it, in the same transaction:
            proof that survives a crash of the server. A second unit with the same value raises
            SQLAlchemy's `IntegrityError` and does nothing.

    Raises:
        CommitInDoubt: COMMIT was sent, and nobody can know what became of it: the server restarted
            before it could be asked and there is no marker, or time was over.
        TransactionEnded: `work` returned from a transaction that had failed or was ended.
        OutOfTime: The invocation's time was over; nothing is committed.
        DatabaseResuming, ConnectFailed: While connecting; nothing is committed.
        Exception: Whatever `work` raises, after a rollback.

    **Costs:** one round trip more than the same transaction without it: BEGIN, which asks for the id,
    the statements, COMMIT; a marker one more. After a failure: a connect, and one for each question.
    """
    try:
        result: T = _Unit(target, work, idempotency_key).run()
        return result
    except _Repeat as last:
        raise last.error from last.error.__cause__


def transactional(
    target: Engine | sessionmaker[Any], *, idempotency_key: IdempotencyKey | None = None
) -> Callable[[Callable[Concatenate[Any, P], T]], Callable[P, T]]:
    """
    `run_transaction` as a decorator: the function gets the connection as its first argument.

    ```python
    @lambdadb.transactional(engine)
    def place(connection, order): ...


    place(order)
    ```
    """

    def decorate(function: Callable[Concatenate[Any, P], T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            def work(connection: Any) -> T:
                return function(connection, *arguments, **keywords)

            return run_transaction(target, work, idempotency_key=idempotency_key)

        return call

    return decorate


class _Repeat(Exception):
    """Nothing of this run is committed, and another may succeed."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(repr=False, eq=False)
class _CommitUnanswered(Exception):
    """COMMIT was sent and its answer did not come."""

    begun: Transaction
    result: Any
    error: Exception


class _LostAgain(Exception):
    """The connection for questions was lost too."""


class _Unit:
    """One unit of work and what it needs to be run, asked about and run again."""

    def __init__(self, target: Any, work: Callable[[Any], Any], idempotency_key: Any) -> None:
        self._target = target
        self._engine = _engine_of(target)
        if inspect.iscoroutinefunction(work):
            raise InvalidSettings("The work is a coroutine function: use lambdadb.aio.run_transaction.")
        self._work = work
        self._idempotency_key = idempotency_key
        pool: Any = self._engine.pool
        self._random: Random = SystemRandom()
        connector: Connector = pool.connector
        self._driver = connector.driver
        self._clock = connector.clock
        self._deadline: Deadline = connector.settings.retry.connect_deadline(
            connector.clock, connector.invocations.deadline
        )
        self._tracer: Tracer | None = connector.settings.tracer
        self._runs = 0
        self._outcome: Outcome | None = None  # what a question to the server found out

    def run(self) -> Any:
        """Run it until it is committed, fails for good, or time is over; tell of what was not usual."""
        began = self._clock.now()
        try:
            result = self._run()
        except Exception as error:
            self._tell(began, error.error if isinstance(error, _Repeat) else error)
            raise
        self._tell(began, None)
        return result

    def _tell(self, began: float, error: Exception | None) -> None:
        if self._runs < 2 and self._outcome is None:
            return
        attributes: dict[str, str | int] = {"lambdadb.runs": self._runs}
        if self._outcome is not None:
            attributes["lambdadb.outcome"] = self._outcome
        now, wall = self._clock.moment()
        span = Span(
            name="transaction",
            began=wall - (now - began),
            seconds=now - began,
            attributes=attributes,
            error=error,
        )
        emit(self._tracer, lambda: span)

    def _run(self) -> Any:
        loop = retrying(
            again=lambda error: isinstance(error, _Repeat),
            pause=lambda _, number: conflict_backoff(number, self._random),
            deadline=self._deadline,
            clock=self._clock,
            sleep=self._clock.sleep,
        )
        return loop(self._run_and_settle)

    def _run_and_settle(self) -> Any:
        try:
            return self._run_once()
        except _CommitUnanswered as lost:
            reason = getattr(lost.error, "orig", lost.error)
            logger.warning(
                "The answer to COMMIT was lost (%s): asking the server", one_line(str(reason))
            )
            if self._settle_commit(lost) == "committed":
                return lost.result
            raise _Repeat(lost.error) from lost.error

    def _run_once(self) -> Any:
        self._runs += 1
        begun, result = None, None
        try:
            with self._opened() as (handle, connection, flush, commit):
                begun = self._driver.begin(connection)
                try:
                    result = self._do(handle, connection, flush, begun)
                    commit()
                except DBAPIError as error:
                    if self._driver.meaning(error) == "not the writer":
                        connection.invalidate()  # not the writer any more: the next connect may find it
                    raise
                finally:
                    # SQLAlchemy does not roll back where it believes to be in autocommit.
                    if begun.is_begun and connection.connection.autocommit:
                        connection.connection.rollback()
        except (DBAPIError, OutOfTime) as error:
            self._judge(error, begun, result)
            raise
        return result

    def _do(
        self, handle: Any, connection: Connection, flush: Callable[[], object], begun: Transaction
    ) -> Any:
        """Everything before COMMIT."""
        if self._idempotency_key is not None:
            column, value = self._idempotency_key
            connection.execute(insert(column.table).values({column.name: value}))
        result = self._work(handle)
        flush()
        if not begun.is_open:
            raise TransactionEnded(
                "The unit of work returned, but its transaction had failed or was ended by it: nothing "
                "of it was committed here. Let errors of statements pass, and leave commit and rollback "
                "to run_transaction."
            )
        return result

    def _judge(self, error: DBAPIError | OutOfTime, begun: Transaction | None, result: Any) -> None:
        """Raise `_Repeat` or `_CommitUnanswered` where an error means that; else it means itself."""
        if begun is None or begun.commit_state == "done":
            # Not begun: a connect has done its own waiting. Committed: what failed came after it.
            if not isinstance(error, LambdaDBError) and begun is None and error.connection_invalidated:
                raise _Repeat(error) from error
            return
        lost = error.sent if isinstance(error, OutOfTime) else error.connection_invalidated
        if lost and begun.commit_state == "sent":
            raise _CommitUnanswered(begun, result, error) from error
        if isinstance(error, OutOfTime):
            return
        if lost and begun.id and self._settle(begun) == "committed":
            # Asked in any case: its session may be alive, and hold locks that the next run needs.
            raise TransactionEnded("The unit of work committed its transaction itself.") from error
        if lost or self._driver.meaning(error) in ("conflict", "not the writer"):
            raise _Repeat(error) from error

    def _settle_commit(self, lost: _CommitUnanswered) -> Outcome:
        if not lost.begun.id:  # read-only: nothing can be lost or doubled
            return "committed"
        try:
            outcome = self._settle(lost.begun)
        except LambdaDBError as error:
            raise CommitInDoubt(lost.begun.id, f"the server could not be asked: {error}") from error
        if outcome == "unknown":
            raise CommitInDoubt(
                lost.begun.id, "the server restarted, so that its answer cannot be trusted"
            ) from lost.error
        return outcome

    def _settle(self, begun: Transaction) -> Outcome:
        """Ask what became of a transaction; a session that still has it open is ended."""
        number = 0
        while True:
            with contextlib.suppress(_LostAgain), self._asking() as connection:
                outcome = self._driver.ask_outcome(connection, begun)
                if outcome == "unknown" and self._idempotency_key is not None:
                    column, value = self._idempotency_key
                    found = connection.execute(select(column).where(column == value)).first()
                    outcome = "committed" if found is not None else "aborted"
                if outcome is not None:
                    self._outcome = outcome
                    return outcome
            number += 1
            pause = conflict_backoff(number, self._random)
            if pause >= self._deadline.remaining(self._clock):
                raise OutOfTime("the time to ask what became of a transaction was over", sent=False)
            self._clock.sleep(pause)

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """A connection for questions, each of one round trip; raises `_LostAgain` with it."""
        try:
            with self._engine.connect() as connection:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
        except LambdaDBError:
            raise
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise _LostAgain from error

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Connection, Callable[[], object], Callable[[], object]]]:
        """What `work` gets, its connection, and how to flush and to commit it."""
        if isinstance(self._target, Engine):
            with self._target.connect() as connection, connection.begin() as begun:
                yield connection, connection, lambda: None, begun.commit
            return
        with self._target() as session:
            yield session, session.connection(), session.flush, session.commit


def _engine_of(target: Any) -> Engine:
    if getattr(target, "kw", {}).get("twophase"):
        raise InvalidSettings("A two-phase session cannot be repeated: what it prepared would stay.")
    engine = target if isinstance(target, Engine) else getattr(target, "kw", {}).get("bind")
    if not isinstance(engine, Engine) or not isinstance(engine.pool, GuardedPool):
        raise InvalidSettings(
            f"run_transaction got {type(target).__name__}: pass an engine of lambdadb.create_engine, or "
            "a sessionmaker bound to one. For an AsyncEngine use lambdadb.aio.run_transaction."
        )
    return engine
