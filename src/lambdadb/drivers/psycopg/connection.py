"""
psycopg's connections with a deadline.

Statements end with the invocation's time. A session can be ended while another thread uses it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, Literal

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from sqlalchemy.engine import ExceptionContext

from lambdadb.deadline import StatementDeadline
from lambdadb.drivers.base import Proxy
from lambdadb.drivers.endings import make_invocation_ended, make_out_of_time
from lambdadb.drivers.psycopg.cancel import prepare_cancel
from lambdadb.drivers.psycopg.deadline_function import explain_refusal, make_call
from lambdadb.drivers.psycopg.proxies import make_connect_failed
from lambdadb.drivers.psycopg.simple_query import execute
from lambdadb.drivers.psycopg.unit_of_work import (
    Server,
    ServerSession,
    UnitEnded,
    UnitOfWork,
    is_refusal,
)
from lambdadb.errors import LambdaDBError, TransactionEnded

# Only Linux distinguishes a socket that the peer closed from one with data. Elsewhere both are readable.
CLOSING = getattr(select, "POLLRDHUP", 0)

ACTIVE, _IDLE = pq.TransactionStatus.ACTIVE, pq.TransactionStatus.IDLE
_OK = pq.ConnStatus.OK
_NO_PIPELINE = pq.PipelineStatus.OFF
# psycopg's own time limit of a wait, since 3.3. Its exception is not public. Without it the deadline
# is checked in each turn of the wait (`_check_in_each_turn`), which takes a little more processor time.
_WaitTimeout: type[psycopg.Error] | None = None
if "timeout" in psycopg.Connection.wait.__code__.co_varnames:
    _WaitTimeout = getattr(psycopg.errors, "_WaitTimeout", None)
NOT_READY = 0  # what psycopg sends to a generator whose wait has timed out


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

    psycopg waits for the server in one method, `wait()`, in turns of a tenth of a second. This class
    checks the deadline there, so it needs no thread.
    """

    deadline: StatementDeadline
    wait_limit: float | None = None
    """A moment at which every wait ends, while connecting and in pings."""
    idle_session_timeout: float | None = None
    """Seconds unused after which the server ends the session; None if unknown or never."""
    timed_out = False
    """Whether a statement was ended at its deadline. A late cancel may still hit the next one."""
    aborted = False
    """Whether the invocation that used it is over."""
    commit_state: Literal["none", "sent", "done"] = "none"
    """How far the COMMIT of the current transaction came; `none` also if the server has refused it."""
    server: Server | None = None
    """The server that it is connected to; None until a transaction of `run_transaction` has asked."""
    session: ServerSession | None = None
    """Its session; None until a transaction has asked, and where a proxy shares sessions."""
    unit: UnitOfWork | None = None
    """The unit of work of `run_transaction` that uses it now."""
    standby: bytes | None = None
    """Whether its server was a standby when it was opened (`in_hot_standby`, PostgreSQL 14)."""
    proxy: Proxy = "none"
    """The proxy that gives it a session of the server for each transaction."""
    learn_pid: Callable[[Any, int], None] | None = None
    """Looks for a proxy: takes the connection, and the process id that its session has told."""
    poller: select.poll
    """Polls its socket while it is idle."""
    context_adapters: AdaptersMap | None = None
    """The adapters of the `context` that it was opened with; None: psycopg's own."""
    _may_be_late = False
    """Whether the deadline does not apply now: for a rollback, or where nothing is sent."""
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
        return idle and (self.unit is not None or not self.autocommit)

    def _start_query(self) -> PQGen[None]:
        if self.unit is not None:
            self.unit.check_statement(self.pgconn)
            if self.unit.is_unsent and not self.begin_is_deferred:
                yield from self.unit.begin(self)
        if self.begin_is_deferred:
            return
        begins = not self.autocommit and self.pgconn.transaction_status == _IDLE
        call = make_call(self.deadline) if begins else b""
        if call and self.pgconn.pipeline_status == _NO_PIPELINE:
            yield from execute(self.pgconn, b";\n".join(self.begin_commands()))
            return
        yield from super()._start_query()
        if call and hasattr(self, "_exec_command"):  # it adds to psycopg's own pipeline
            yield from self._exec_command(call)

    def begin_commands(self) -> list[bytes]:
        """Return psycopg's BEGIN, and the call of the deadline function if there is one."""
        begin = _make_begin(self.isolation_level, self.read_only, self.deferrable)
        call = make_call(self.deadline)
        return [begin, call] if call else [begin]

    def _get_tx_start_command(self) -> bytes:
        if self.unit is not None:  # its own BEGIN was sent, and its transaction is over
            raise UnitEnded("The unit of work has ended its transaction. Another was not begun.")
        return super()._get_tx_start_command()

    @property
    def _can_cancel(self) -> bool:
        """Whether a request to cancel reaches the server. RDS Proxy has none (RDS Proxy limitations)."""
        return self.proxy != "rds-proxy"

    def abort(self) -> None:
        """
        End the session, also while another thread waits for an answer on it.

        A running statement is cancelled. The thread that uses the connection finds it closed.
        """
        self.aborted = True
        if self.pgconn.status != pq.ConnStatus.OK:
            return
        with contextlib.suppress(OSError, psycopg.OperationalError):  # it has just been closed
            cancel = prepare_cancel(self.pgconn, self.deadline.clock)
            with socket.socket(fileno=os.dup(self.pgconn.socket)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
            # Only now can the thread send nothing more. What it sent before would run on.
            if self.pgconn.transaction_status != _IDLE and self._can_cancel:
                cancel()

    def _times(self) -> tuple[float, float] | None:
        """Return when a statement that is sent now is cancelled and closed. Raises if it is too late."""
        if self.aborted and not self._may_be_late:
            self.pgconn.finish()
            raise InvocationClosed("the invocation that opened this connection has ended")
        times = self.deadline.times(self.wait_limit)
        if times is not None and self.deadline.clock.now() >= times[0] and not self._may_be_late:
            raise StatementTimeout("the statement was not sent", sent=False)
        return times

    def _check_time(self, cancel_at: float, close_at: float) -> None:
        now = self.deadline.clock.now()
        if now < cancel_at:
            return
        if now >= close_at or not self._can_cancel:
            self.timed_out = True
            self.pgconn.finish()
            raise StatementTimeout("no answer came, and the connection was closed", sent=True)
        if not self.timed_out:
            self.timed_out = True
            prepare_cancel(self.pgconn, self.deadline.clock)()

    def _check_in_each_turn(
        self, cancel_at: float, close_at: float, generator: PQGen[Any], ready: Any = None
    ) -> PQGen[Any]:
        """Run `generator`, and check the deadline in each turn of its waits."""
        try:
            while True:
                wish = generator.send(ready)
                self._check_time(cancel_at, close_at)
                ready = yield wish
        except StopIteration as end:
            return end.value

    def _translate_failure(self, error: psycopg.Error) -> Exception:
        """Return the error for a failed wait."""
        if not isinstance(error, psycopg.OperationalError):
            return explain_refusal(error, self.deadline.function) or error
        if self.timed_out and isinstance(error, psycopg.errors.QueryCanceled):
            return StatementTimeout("the statement was cancelled", sent=True)
        # psycopg leaves some connections open whose statement was sent and not answered ("connection
        # socket closed"). SQLAlchemy would take such an error for the server's answer, although a
        # COMMIT may have been done. An error with an SQLSTATE is the server's answer. While rows are
        # streamed it comes before the statement's end, which psycopg then reads.
        answered = error.sqlstate is not None
        if not answered and self.pgconn.status == _OK and self.pgconn.transaction_status == ACTIVE:
            self.pgconn.finish()
        # abort() has caused any error of an aborted connection. A COMMIT has still to be asked for.
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
        """Find out whether COMMIT was refused. If that is not certain, the connection counts as lost."""
        if isinstance(error, (StatementTimeout, InvocationClosed)):
            refused = not getattr(error, "sent", False)
        else:
            refused = is_refusal(error)
        if refused:
            self.commit_state = "none"
        elif self.commit_state == "sent":
            self.pgconn.finish()

    def _nothing_to_roll_back(self) -> bool:
        if self.unit is not None:
            self.unit.roll_back(self.pgconn)
        if self.aborted:
            self.pgconn.finish()
        # SQLAlchemy rolls back at each return, usually after a COMMIT. psycopg would find this out too,
        # but with a lock and a generator.
        idle = self.pgconn.transaction_status == _IDLE
        return self.pgconn.status != _OK or (idle and self.pgconn.pipeline_status == _NO_PIPELINE)


class DeadlineConnection(_Deadlined, psycopg.Connection[Any]):
    """psycopg's Connection with a deadline."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        if self.unit is not None and self.unit.has_to_begin_before(gen):
            self.wait(self.unit.begin(self))
        times = self._times()
        try:
            if times is None:
                return super().wait(gen, *arguments, **keywords)
            if arguments or keywords or _WaitTimeout is None:
                return super().wait(self._check_in_each_turn(*times, gen), *arguments, **keywords)
            try:
                return super().wait(gen, timeout=times[0] - self.deadline.clock.now())
            except _WaitTimeout:
                gen = self._check_in_each_turn(*times, gen, NOT_READY)
            return super().wait(gen)
        except psycopg.Error as error:
            raise self._translate_failure(error) from error.__cause__

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
        """Roll back, within the reserve if necessary. Does nothing if the session has ended."""
        if self._nothing_to_roll_back():
            return
        self._may_be_late = True
        try:
            super().rollback()
        finally:
            self._may_be_late = False


class AsyncDeadlineConnection(_Deadlined, psycopg.AsyncConnection[Any]):
    """psycopg's AsyncConnection with a deadline."""

    async def wait(self, gen: PQGen[Any], *arguments: Any, **keywords: Any) -> Any:
        """Wait as psycopg does, but not beyond the invocation's time less the reserve."""
        if self.unit is not None and self.unit.has_to_begin_before(gen):
            await self.wait(self.unit.begin(self))
        times = self._times()
        try:
            if times is None:
                return await super().wait(gen, *arguments, **keywords)
            if arguments or keywords or _WaitTimeout is None:
                return await super().wait(self._check_in_each_turn(*times, gen), *arguments, **keywords)
            try:
                return await super().wait(gen, timeout=times[0] - self.deadline.clock.now())
            except _WaitTimeout:
                gen = self._check_in_each_turn(*times, gen, NOT_READY)
            return await super().wait(gen)
        except psycopg.Error as error:
            raise self._translate_failure(error) from error.__cause__

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
        """Roll back, within the reserve if necessary. Does nothing if the session has ended."""
        if self._nothing_to_roll_back():
            return
        self._may_be_late = True
        try:
            await super().rollback()
        finally:
            self._may_be_late = False


AnyConnection = DeadlineConnection | AsyncDeadlineConnection


@functools.cache
def _make_begin(
    isolation_level: psycopg.IsolationLevel | None, read_only: bool | None, deferrable: bool | None
) -> bytes:
    words = ["BEGIN"]
    if isolation_level is not None:
        words.append(f"ISOLATION LEVEL {isolation_level.name.replace('_', ' ')}")
    if read_only is not None:
        words.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        words.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return " ".join(words).encode()


@contextlib.contextmanager
def allow_late(connection: Any) -> Iterator[None]:
    """
    Ignore the deadline inside the block.

    psycopg calls `wait()` even if nothing is sent. Setting the connection's own attributes (isolation
    level, autocommit) sends nothing, and has to work after the deadline.
    """
    before = getattr(connection, "_may_be_late", False)
    connection._may_be_late = True
    try:
        # If the session has ended with its invocation, its next statement raises the error.
        with contextlib.suppress(InvocationClosed):
            yield
    finally:
        connection._may_be_late = before


def translate_error(context: ExceptionContext) -> LambdaDBError | None:
    """SQLAlchemy's `handle_error` listener (`retval=True`): translates an error to lambdadb's."""
    return translate(context.original_exception)


def translate(error: BaseException) -> LambdaDBError | None:
    """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
    if isinstance(error, LambdaDBError):
        return error  # while connecting again; SQLAlchemy would wrap it in a StatementError
    if isinstance(error, UnitEnded):
        return TransactionEnded(str(error))
    if isinstance(error, StatementTimeout):
        return make_out_of_time(str(error), sent=error.sent)
    return make_invocation_ended() if isinstance(error, InvocationClosed) else make_connect_failed(error)
