"""
psycopg's connections with a deadline: a statement ends with the invocation's time, and a session can be
ended while another thread uses it.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.pq.abc import PGconn
from sqlalchemy.engine import ExceptionContext

from lambdadb.deadline import Clock, StatementDeadline
from lambdadb.drivers.psycopg.unit_of_work import Server, UnitEnded, UnitOfWork, is_refusal
from lambdadb.errors import InvocationEnded, LambdaDBError, OutOfTime, TransactionEnded

# Linux alone tells a socket that the peer closed from one that has data; elsewhere both are readable.
CLOSING = getattr(select, "POLLRDHUP", 0)

ACTIVE, _IDLE = pq.TransactionStatus.ACTIVE, pq.TransactionStatus.IDLE
WAITING: dict[int, int] = {
    pq.PollingStatus.READING: selectors.EVENT_READ,
    pq.PollingStatus.WRITING: selectors.EVENT_WRITE,
}
_OK = pq.ConnStatus.OK
_NO_PIPELINE = pq.PipelineStatus.OFF
# psycopg's own time limit of a wait, since 3.3. Its exception is not public. Without it each of the
# wait's turns is looked at instead (`_until`), which takes a little more processor time.
_WaitTimeout: type[psycopg.Error] | None = None
if "timeout" in psycopg.Connection.wait.__code__.co_varnames:
    _WaitTimeout = getattr(psycopg.errors, "_WaitTimeout", None)
NOT_READY = 0  # what psycopg's generators are told when a wait, once begun, has ended for want of time
CANCEL = 5.0  # seconds after which the thread that cancels gives up


class StatementTimeout(psycopg.OperationalError):
    """A statement was ended, or not sent, because its time was over."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class InvocationClosed(psycopg.OperationalError):
    """The invocation that opened the connection is over."""


class _Deadlined(psycopg.BaseConnection[Any]):
    """
    A psycopg connection whose statements end with the invocation's time.

    psycopg waits for the server in one method, in turns of a tenth of a second: there, and without a
    thread, is where a deadline can be kept.
    """

    deadline: StatementDeadline
    wait_limit: float | None = None
    """A moment at which every wait is given up: while connecting, and in pings."""
    idle_session_timeout: float | None = None
    """Seconds unused after which the server ends the session, if it was opened with that."""
    timed_out = False
    """Whether a statement was ended for want of time: a late cancel may still hit the next one."""
    aborted = False
    """Whether the invocation that held it is over."""
    commit_state: Literal["none", "sent", "done"] = "none"
    """How far the COMMIT of the present transaction came; `none` too if the server has refused it."""
    server: Server | None = None
    """Which server it leads to, once a transaction of `run_transaction` has asked."""
    unit: UnitOfWork | None = None
    """The unit of work of `run_transaction` that uses it now."""
    poller: select.poll
    """Polls its socket for what comes unasked."""
    context_adapters: AdaptersMap | None = None
    """The adapters of the `context` that it was opened with; None: psycopg's own."""
    _may_be_late = False
    """Whether what is sent now is sent after the deadline too: a rollback, or nothing at all."""
    begin_is_deferred = False
    """Whether a cursor is about to send BEGIN itself, together with its statement (pipeline.py)."""

    @property
    def adapters(self) -> AdaptersMap:
        """How values are written and read."""
        return self.context_adapters or super().adapters

    @property
    def begins(self) -> bool:
        """Whether the next statement begins a transaction, outside of psycopg's own pipelines."""
        pgconn = self.pgconn
        idle = pgconn.transaction_status == _IDLE and pgconn.pipeline_status == _NO_PIPELINE
        return idle and not self.autocommit

    def _start_query(self) -> PQGen[None]:
        if self.unit is not None:
            self.unit.check_statement(self.pgconn)
        if not self.begin_is_deferred:
            yield from super()._start_query()

    def abort(self) -> None:
        """
        End the session without touching what its holder, maybe another thread, is waiting on.

        A statement that runs is cancelled. The holder finds the connection closed.
        """
        self.aborted = True
        if self.pgconn.status != pq.ConnStatus.OK:
            return
        if self.pgconn.transaction_status == ACTIVE:
            _cancel(self.pgconn, self.deadline.clock)
        with (
            contextlib.suppress(OSError, psycopg.OperationalError),  # its holder has just closed it
            socket.socket(fileno=os.dup(self.pgconn.socket)) as copy,
        ):
            copy.shutdown(socket.SHUT_RDWR)

    def _times(self) -> tuple[float, float] | None:
        """When what is to be sent now is cancelled and when it is closed; raises if it is too late."""
        if self.aborted and not self._may_be_late:
            self.pgconn.finish()
            raise InvocationClosed("the invocation that opened this connection has ended")
        times = self.deadline.times(self.wait_limit)
        if times is not None and self.deadline.clock.now() >= times[0] and not self._may_be_late:
            raise StatementTimeout("the statement was not sent", sent=False)
        return times

    def _look_at_the_time(self, cancel_at: float, close_at: float) -> None:
        now = self.deadline.clock.now()
        if now < cancel_at:
            return
        if now >= close_at:
            self.timed_out = True
            self.pgconn.finish()
            raise StatementTimeout("no answer came, and the connection was closed", sent=True)
        if not self.timed_out:
            self.timed_out = True
            _cancel(self.pgconn, self.deadline.clock)

    def _until(
        self, cancel_at: float, close_at: float, generator: PQGen[Any], ready: Any = None
    ) -> PQGen[Any]:
        """`generator`, whoever waits for it, with a look at the time in each turn."""
        try:
            while True:
                wish = generator.send(ready)
                self._look_at_the_time(cancel_at, close_at)
                ready = yield wish
        except StopIteration as end:
            return end.value

    def _failed(self, error: psycopg.OperationalError) -> psycopg.OperationalError:
        """What a failed wait means."""
        if self.timed_out and isinstance(error, psycopg.errors.QueryCanceled):
            return StatementTimeout("the statement was cancelled", sent=True)
        # psycopg leaves some connections open whose statement was sent and not answered ("connection
        # socket closed"). SQLAlchemy would take such an error for the server's answer, although a
        # COMMIT may have been done. An error with an SQLSTATE is the server's answer. While rows are
        # streamed it comes before the statement's end, which psycopg then reads.
        answered = error.sqlstate is not None
        if not answered and self.pgconn.status == _OK and self.pgconn.transaction_status == ACTIVE:
            self.pgconn.finish()
        # abort() broke it, whatever it looks like; but what became of a COMMIT has still to be asked.
        if self.aborted and self.commit_state != "sent":
            return InvocationClosed("the invocation that opened this connection has ended")
        return error

    def _begin_commit(self) -> None:
        if self.unit is None:
            self.commit_state = "sent"
        else:
            self.commit_state = "none"
            self.unit.check_commit()

    def _commit_failed(self, error: psycopg.Error) -> None:
        """Find out whether COMMIT was refused; if that is not certain, the connection counts as lost."""
        if isinstance(error, (StatementTimeout, InvocationClosed)):
            refused = not getattr(error, "sent", False)
        else:
            refused = is_refusal(error)
        if refused:
            self.commit_state = "none"
        elif self.commit_state == "sent":
            self.pgconn.finish()

    def _nothing_to_roll_back(self) -> bool:
        if self.aborted:
            self.pgconn.finish()
        # SQLAlchemy rolls back at each return, mostly after a COMMIT: psycopg would find out the same,
        # with a lock and a generator.
        idle = self.pgconn.transaction_status == _IDLE
        return self.pgconn.status != _OK or (idle and self.pgconn.pipeline_status == _NO_PIPELINE)


class DeadlineConnection(_Deadlined, psycopg.Connection[Any]):
    """psycopg's Connection, bounded."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        times = self._times()
        try:
            if times is None:
                return super().wait(gen, *arguments, **keywords)
            if arguments or keywords or _WaitTimeout is None:
                return super().wait(self._until(*times, gen), *arguments, **keywords)
            try:
                return super().wait(gen, timeout=times[0] - self.deadline.clock.now())
            except _WaitTimeout:
                gen = self._until(*times, gen, NOT_READY)
            return super().wait(gen)
        except psycopg.OperationalError as error:
            raise self._failed(error) from error.__cause__

    def commit(self) -> None:
        """Commit, and remember how far it came."""
        self._begin_commit()
        try:
            if self.unit is None:
                super().commit()
            else:
                with self.lock:
                    self.wait(self.unit.commit(self))
        except psycopg.Error as error:
            self._commit_failed(error)
            raise
        self.commit_state = "done"

    def rollback(self) -> None:
        """Roll back, within the reserve if need be; nothing to do where the session is over."""
        if self._nothing_to_roll_back():
            return
        self._may_be_late = True
        try:
            super().rollback()
        finally:
            self._may_be_late = False


class AsyncDeadlineConnection(_Deadlined, psycopg.AsyncConnection[Any]):
    """psycopg's AsyncConnection, bounded."""

    async def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        times = self._times()
        try:
            if times is None:
                return await super().wait(gen, *arguments, **keywords)
            if arguments or keywords or _WaitTimeout is None:
                return await super().wait(self._until(*times, gen), *arguments, **keywords)
            try:
                return await super().wait(gen, timeout=times[0] - self.deadline.clock.now())
            except _WaitTimeout:
                gen = self._until(*times, gen, NOT_READY)
            return await super().wait(gen)
        except psycopg.OperationalError as error:
            raise self._failed(error) from error.__cause__

    async def commit(self) -> None:
        """Commit, and remember how far it came."""
        self._begin_commit()
        try:
            if self.unit is None:
                await super().commit()
            else:
                async with self.lock:
                    await self.wait(self.unit.commit(self))
        except psycopg.Error as error:
            self._commit_failed(error)
            raise
        self.commit_state = "done"

    async def rollback(self) -> None:
        """Roll back, within the reserve if need be; nothing to do where the session is over."""
        if self._nothing_to_roll_back():
            return
        self._may_be_late = True
        try:
            await super().rollback()
        finally:
            self._may_be_late = False


AnyConnection = DeadlineConnection | AsyncDeadlineConnection


@contextlib.contextmanager
def allow_late(connection: Any) -> Iterator[None]:
    """
    Let what happens inside go on after the deadline.

    psycopg waits in the same method whether or not something is sent. What changes the connection's own
    attributes (isolation level, autocommit) sends nothing, and has to work when time is over.
    """
    before = getattr(connection, "_may_be_late", False)
    connection._may_be_late = True
    try:
        # Of a session that was ended with its invocation it does not matter: its next statement tells.
        with contextlib.suppress(InvocationClosed):
            yield
    finally:
        connection._may_be_late = before


def translate_error(context: ExceptionContext) -> LambdaDBError | None:
    """SQLAlchemy's `handle_error` listener (`retval=True`) that names the end of a statement."""
    return translate(context.original_exception)


def translate(error: BaseException) -> LambdaDBError | None:
    """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
    if isinstance(error, LambdaDBError):
        return error  # while connecting again; SQLAlchemy would wrap it in a StatementError
    if isinstance(error, UnitEnded):
        return TransactionEnded(str(error))
    return to_out_of_time(error) if isinstance(error, StatementTimeout) else to_invocation_ended(error)


def to_out_of_time(error: StatementTimeout) -> OutOfTime:
    """The error for a statement that outlived the invocation's time."""
    return OutOfTime(
        f"Time was over, the invocation's less the reserve for its answer, or a connect's: {error}. "
        "Unless it was a COMMIT, or in autocommit, nothing of it remains. Raise the function's timeout, "
        "or do less in one invocation.",
        sent=error.sent,
    )


def to_invocation_ended(error: BaseException | None) -> InvocationEnded | None:
    """The error for a session that outlived its invocation."""
    if not isinstance(error, InvocationClosed):
        return None
    return InvocationEnded(
        "The invocation in which this session began has ended: its transaction was rolled back and its "
        "connection closed. Open sessions inside the handler, in a `with` block; roll this one back, or "
        "close it, before it is used again."
    )


def _cancel(pgconn: PGconn, clock: Clock) -> None:
    """
    Ask the server to end the running statement, in a thread and on a connection of its own.

    Where it can be, not by libpq's older PQcancel, which psycopg calls without letting other threads
    run. Whether or not it arrives, what follows is the same: the connection is not used again.
    """
    try:
        cancel = pgconn.cancel_conn()
    except psycopg.NotSupportedError:  # libpq before 17 has nothing else
        threading.Thread(target=_suppressed(pgconn.get_cancel().cancel), daemon=True).start()
        return

    def run() -> None:
        end = clock.now() + CANCEL
        try:
            cancel.start()
            while event := WAITING.get(cancel.poll()):
                if not Clock().wait({cancel.socket: event}, end - clock.now()):
                    break
        finally:
            cancel.finish()

    threading.Thread(target=_suppressed(run), daemon=True).start()


def _suppressed(cancel: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            cancel()

    return run
