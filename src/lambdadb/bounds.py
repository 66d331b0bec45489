"""
The deadline inside statements: psycopg's connections, whose waiting ends with the invocation's time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn
from sqlalchemy.engine import ExceptionContext

from lambdadb.deadline import Clock, Scope
from lambdadb.errors import OutOfTime


@dataclass(frozen=True)
class Bounds:
    """Until when the statements of an engine's connections may run."""

    scope: Scope
    clock: Clock
    reserve: float
    """Seconds before the invocation's end at which the running statement is cancelled."""

    def cancel_at(self) -> float | None:
        """When the running statement is cancelled; None outside an invocation with a deadline."""
        return None if self.scope.deadline is None else self.scope.deadline.at - self.reserve

    def close_at(self, cancelled: float) -> float:
        """When a connection that does not answer the cancel is closed: half of the reserve later."""
        return cancelled + self.reserve / 2


class Expired(psycopg.OperationalError):
    """A statement was ended because the invocation's time is over."""


class _Bounded:
    """
    A psycopg connection whose statements end with the invocation's time.

    psycopg waits for the server in one method, in turns of a tenth of a second: there, and without a
    thread, is where a deadline can be kept.
    """

    bounds: Bounds
    pgconn: PGconn
    expired = False
    """Whether a statement was ended for want of time; then the connection is not used again."""

    def _bounded(self, generator: PQGen[Any]) -> PQGen[Any]:
        cancel_at = self.bounds.cancel_at()
        return generator if cancel_at is None else self._until(cancel_at, generator)

    def _close_if_unanswered(self) -> None:
        """
        Close a connection whose statement was sent and not answered.

        psycopg leaves some of them open ("connection socket closed"), and SQLAlchemy then takes the
        error for the server's answer, although a COMMIT may have been done.
        """
        if self.pgconn.status == pq.ConnStatus.OK and (
            self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE
        ):
            self.pgconn.finish()

    def _until(self, cancel_at: float, generator: PQGen[Any]) -> PQGen[Any]:
        ready: Any = None
        try:
            while True:
                wish = generator.send(ready)
                if self.bounds.clock.now() >= cancel_at:
                    self._expire(cancel_at)
                ready = yield wish
        except StopIteration as end:
            return end.value
        except psycopg.errors.QueryCanceled as error:
            if not self.expired:
                raise  # the server's statement_timeout, or somebody else's cancel
            raise Expired("the statement was cancelled") from error

    def _expire(self, cancel_at: float) -> None:
        if self.bounds.clock.now() >= self.bounds.close_at(cancel_at):
            self.expired = True
            self.pgconn.finish()
            raise Expired("connection closed, as the server did not answer the cancel")
        if not self.expired:
            self.expired = True
            # Cancelling opens a connection of its own and blocks: in a thread, which is rare.
            cancel = self.pgconn.get_cancel().cancel
            threading.Thread(target=_try_to_cancel, args=[cancel], daemon=True).start()


class BoundedConnection(_Bounded, psycopg.Connection[Any]):
    """psycopg's Connection, bounded."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        try:
            return super().wait(self._bounded(gen), *arguments, **keywords)
        except psycopg.OperationalError:
            self._close_if_unanswered()
            raise


class BoundedAsyncConnection(_Bounded, psycopg.AsyncConnection[Any]):
    """psycopg's AsyncConnection, bounded."""

    async def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        try:
            return await super().wait(self._bounded(gen), *arguments, **keywords)
        except psycopg.OperationalError:
            self._close_if_unanswered()
            raise


def _try_to_cancel(cancel: Callable[[], None]) -> None:
    # Whether or not it arrives, what follows is the same: the connection is closed soon after.
    with contextlib.suppress(psycopg.OperationalError):
        cancel()


def out_of_time(context: ExceptionContext) -> OutOfTime | None:
    """SQLAlchemy's `handle_error` listener (`retval=True`) that gives an expired statement its name."""
    if not isinstance(context.original_exception, Expired):
        return None
    return OutOfTime(
        "The invocation's time, less the reserve for its answer, was over while a statement ran: "
        f"{context.original_exception}. Its transaction is rolled back, unless it was a COMMIT. "
        "Raise the function's timeout, or do less in one invocation."
    )


AnyConnection = BoundedConnection | BoundedAsyncConnection
