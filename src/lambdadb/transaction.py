"""
`run_transaction` repeats a unit of work until its transaction is known to be committed exactly once.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from sqlalchemy import Connection, Engine, RootTransaction, insert

from lambdadb.deadline import Deadline
from lambdadb.drivers.base import Meaning, Transaction
from lambdadb.errors import (
    CommitInDoubt,
    DatabaseResuming,
    InvalidSettings,
    LambdaDBError,
    TransactionEnded,
)
from lambdadb.faults import one_line
from lambdadb.outcome import OutcomeQuestion
from lambdadb.pool import GuardedPool
from lambdadb.retry import conflict_backoff, retrying
from lambdadb.tracing.span import Span, Tracer, emit

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from lambdadb.outcome import IdempotencyKey

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
    to a node that takes no writes yet, and the loss of the connection before COMMIT. If the answer to
    COMMIT is lost, lambdadb asks the server what became of the transaction, and never guesses.

    So `work` may run several times, and only its last run counts: it must do nothing outside of the
    database that may not be repeated, must take its inputs from its arguments, and must neither commit
    nor catch the error of a failed statement. An error after the answer to COMMIT, such as one of a
    listener to `after_commit`, is logged, and the result is returned.

    Args:
        target: An engine of lambdadb (`work` gets a `Connection`) or a `sessionmaker` bound to one
            (`work` gets a `Session`). Its isolation level is kept.
        work: The unit of work.
        idempotency_key: A unique column and the value to insert into it, in the same transaction:
            proof that survives a restart of the server. A second unit with the same value raises
            SQLAlchemy's `IntegrityError` and does nothing.

    Raises:
        CommitInDoubt: COMMIT was sent, and nobody can know what became of it: the server restarted or
            another one answered and there is no key, it could not be asked, or time was over.
        TransactionEnded: `work` returned from a transaction that had failed, ended it, or was to
            commit it. Its `committed` says whether `work` itself has committed a part.
        OutOfTime: The invocation's time was over; nothing is committed.
        InvalidSettings: A `do_connect` listener made the connection; nothing was done.
        DatabaseResuming, ConnectFailed: While connecting; nothing is committed.
        Exception: Whatever `work` raises, after a rollback.

    **Costs:** the round trips of the same transaction without it; one more for the first unit of work on
    a connection, behind a proxy and on MySQL; a key one more. After a failure: a connect, and one for
    each question. `work` that sends nothing costs none.
    """
    try:
        result: T = _TransactionRunner(target, work, idempotency_key).run()
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

    Raises:
        InvalidSettings: The function is a method, which would get the connection as `self`.
    """

    def decorate(function: Callable[Concatenate[Any, P], T]) -> Callable[P, T]:
        refuse_method(function)

        @functools.wraps(function)
        def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            def work(connection: Any) -> T:
                return function(connection, *arguments, **keywords)

            return run_transaction(target, work, idempotency_key=idempotency_key)

        return call

    return decorate


def refuse_method(function: Callable[..., object]) -> None:
    """Refuse a method of a class, whose first argument is its object and not the connection."""
    first = next(iter(inspect.signature(function).parameters), "")
    if first in ("self", "cls"):
        raise InvalidSettings(
            f"{function.__qualname__} is a method: @transactional gives the connection as the first "
            f"argument, where a method has {first}. Decorate a function inside the method, or call "
            f"run_transaction(engine, {first}._work) with a method that takes the connection."
        )


class _Repeat(Exception):
    """Nothing of this run is committed, and another may succeed."""

    def __init__(self, error: Exception) -> None:
        self.error = error


_COMMITTED_BY_UNIT = (
    "The unit of work committed a part itself: what it did before its own COMMIT, and what followed "
    "COMMIT or ROLLBACK in the same text. Nothing else is committed. Do not call it again as it is. "
    "Leave commit and rollback to run_transaction."
)
_UNANSWERED_COMMIT_OF_UNIT = (
    "the unit of work sent a statement that may commit, and no answer came in time. What it did up to "
    "that statement may be there without the rest"
)
_NOTHING_COMMITTED = (
    "Nothing of it is committed. Let errors of statements pass, and leave commit and rollback to "
    "run_transaction."
)


@dataclass(repr=False, eq=False)
class _Run:
    """One call of the unit of work."""

    transaction: Transaction | None = None
    result: Any = None


class _TransactionRunner:
    """Runs one unit of work, asks what became of its COMMIT, and runs it again."""

    def __init__(self, target: Any, work: Callable[[Any], Any], idempotency_key: Any) -> None:
        self._target = target
        self._engine = _find_engine(target)
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
        # The error of the last run, if that has met a standby.
        self._standby_error: Exception | None = None
        self._question = OutcomeQuestion(
            self._engine, idempotency_key, deadline=self._deadline, random=self._random
        )

    def run(self) -> Any:
        """Run the unit until it is committed, fails for good, or time is over. Record unusual runs."""
        began = self._clock.now()
        try:
            result = self._run()
        except Exception as error:
            self._record(began, error.error if isinstance(error, _Repeat) else error)
            raise
        self._record(began, None)
        return result

    def _record(self, began: float, error: Exception | None) -> None:
        outcome = self._question.last_answer
        if self._runs < 2 and outcome is None:
            return
        attributes: dict[str, str | int] = {"lambdadb.runs": self._runs}
        if outcome is not None:
            attributes["lambdadb.outcome"] = outcome
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
        return loop(self._run_once)

    def _run_once(self) -> Any:
        self._runs += 1
        run = _Run()
        try:
            self._begin_and_work(run)
        except Exception as error:
            if not self._is_committed(error, run):
                translated = self._driver.translate(error)
                if translated is None or translated is error:
                    raise
                raise translated from error
        return run.result

    def _begin_and_work(self, run: _Run) -> None:
        with self._engine.connect() as connection, connection.begin() as begun:
            transaction = run.transaction = self._driver.begin(connection)
            try:
                with self._open_handle(connection, begun) as (handle, flush, commit):
                    if self._idempotency_key is not None:
                        column, value = self._idempotency_key
                        connection.execute(insert(column.table).values({column.name: value}))
                    run.result = self._work(handle)
                    flush()
                    transaction.allow_commit()
                    commit()
            except Exception as error:
                if self._driver.meaning(error, transaction) == "not the writer":
                    connection.invalidate()  # not the writer any more: the next connect may find it
                raise
            finally:
                transaction.leave()

    @contextmanager
    def _open_handle(
        self, connection: Connection, begun: RootTransaction
    ) -> Iterator[tuple[Any, Callable[[], object], Callable[[], object]]]:
        """Give what `work` gets, and the functions that flush and commit it."""
        if isinstance(self._target, Engine):
            yield connection, lambda: None, begun.commit
            return
        # Bound to the connection, so that it cannot go on with another one after a rollback.
        with self._target(bind=connection, join_transaction_mode="control_fully") as session:
            session.connection()
            yield session, session.flush, session.commit

    def _is_committed(self, error: Exception, run: _Run) -> bool:
        """
        Whether the run is committed in spite of an error. False: the error is raised as it is.

        The connection has been returned, so the server can be asked on it or on a new one.

        Raises:
            _Repeat: Nothing is committed, and another run may succeed.
            CommitInDoubt: It cannot be known.
            TransactionEnded: The unit of work ended its transaction itself.
        """
        transaction = run.transaction
        meaning = self._driver.meaning(error, transaction)
        if meaning == "not the writer":
            self._standby_error = error
        elif transaction is not None:
            self._standby_error = None
        if transaction is None:
            if meaning in ("lost", "not the writer"):
                raise _Repeat(error) from error
            over = meaning == "out of time" or isinstance(error, DatabaseResuming)
            if over and self._standby_error is not None:
                raise self._standby_error from error  # the server is there, and takes no writes
            return False  # a connect has its own retries
        if transaction.commit_state == "done":
            # An error after COMMIT is only logged: a caller that sees an error would do the work again.
            logger.error("The transaction is committed. An error came after that:", exc_info=error)
            return True
        if transaction.commit_state == "sent":
            self._resolve_commit(transaction, error)
            return True
        if meaning == "unanswered commit" or transaction.may_be_committed_apart:
            raise CommitInDoubt(transaction.id, _UNANSWERED_COMMIT_OF_UNIT) from error
        if self._is_committed_by_unit(transaction, meaning, error):
            raise TransactionEnded(_COMMITTED_BY_UNIT, committed=True) from error
        if meaning in ("other", "out of time"):
            return False
        if meaning == "ended":
            raise TransactionEnded(f"{error} {_NOTHING_COMMITTED}") from error
        raise _Repeat(error) from error

    def _is_committed_by_unit(
        self, transaction: Transaction, meaning: Meaning, error: Exception
    ) -> bool:
        """Whether the unit of work has sent a COMMIT of its own that was carried out."""
        if transaction.committed_by_unit or meaning == "out of time" or not transaction.id:
            return bool(transaction.committed_by_unit)
        if transaction.may_be_committed_by_unit:
            return self._question.ask_or_doubt(transaction, error) == "committed"
        if transaction.is_lost and meaning in ("lost", "ended"):
            # The question ends its session, whose locks the next run may need. Nothing is committed,
            # unless the unit did so by a way to the server that this host does not see.
            try:
                return self._question.ask(transaction, uses_key=False) == "committed"
            except LambdaDBError:
                raise
            except Exception as failure:
                raise error from failure
        return False

    def _resolve_commit(self, transaction: Transaction, error: Exception) -> None:
        """Find out whether a COMMIT without an answer was carried out. Return if so, raise if not."""
        reason = one_line(str(getattr(error, "orig", error)))
        logger.warning("The answer to COMMIT was lost (%s): asking the server", reason)
        if not transaction.id:
            return  # a standby takes no writes, so nothing can be lost or doubled
        if self._question.ask_or_doubt(transaction, error) == "aborted":
            raise _Repeat(error) from error


def _find_engine(target: Any) -> Engine:
    if getattr(target, "kw", {}).get("twophase"):
        raise InvalidSettings(
            "A two-phase session cannot be repeated, because its prepared transactions would stay."
        )
    engine = target if isinstance(target, Engine) else getattr(target, "kw", {}).get("bind")
    if not isinstance(engine, Engine) or not isinstance(engine.pool, GuardedPool):
        raise InvalidSettings(
            f"run_transaction got {type(target).__name__}: pass an engine of lambdadb.create_engine, or "
            "a sessionmaker bound to one. For an AsyncEngine use lambdadb.aio.run_transaction."
        )
    return engine
