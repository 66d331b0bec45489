"""
PyMySQL's connection with a deadline.

Statements end with the invocation's time. A session can be ended while another thread uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pymysql
from pymysql.connections import Connection
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import SSCursor

from lambdadb.background import run_detached
from lambdadb.deadline import StatementDeadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.endings import make_invocation_ended, make_out_of_time
from lambdadb.drivers.pymysql.cursor import StreamCursor
from lambdadb.drivers.pymysql.stream import Stream
from lambdadb.drivers.pymysql.unit_of_work import (
    REFUSED_COMMITS,
    UnitEnded,
    UnitOfWork,
    error_number,
)
from lambdadb.errors import LambdaDBError, TransactionEnded
from lambdadb.faults import Fault

_LONG = 3600.0  # seconds of one turn of a wait without a deadline
# ER_QUERY_INTERRUPTED; MariaDB's ER_STATEMENT_TIMEOUT, MySQL's ER_QUERY_TIMEOUT
_INTERRUPTED = (1317, 1969, 3024)


class StatementTimeout(pymysql.OperationalError):
    """A statement was ended, or not sent, because its time was over."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class InvocationClosed(pymysql.OperationalError):
    """The invocation that opened the connection is over."""


class DeadlineConnection(Connection):
    """
    A PyMySQL connection whose statements end with the invocation's time.

    PyMySQL waits for the server in its socket. Its socket is a `Stream`, whose waits are decided here.
    """

    stream: Stream
    deadline: StatementDeadline | None = None
    """None while it logs in: the attempt has its own limit."""
    wait_limit: float | None = None
    """A moment at which every wait ends, while connecting and in pings."""
    idle_session_timeout: float | None = None
    """Seconds unused after which the server ends the session; None if unknown."""
    session_settings: Mapping[str, int] = {}
    """Variables that are set by the first statement of the session."""
    dial: Callable[[Any], Connection] | None = None
    """Opens a plain second session with the same login at an address, to end a statement of this one."""
    timed_out = False
    """Whether a statement was ended at its deadline. A late KILL may still hit the next one."""
    aborted = False
    """Whether the invocation that used it is over."""
    is_clean = True
    """Whether nothing was sent since the last COMMIT or ROLLBACK."""
    isolation_level: str | None = None
    """The isolation level that was set in this session; None if none was."""
    commit_state: Literal["none", "sent", "done"] = "none"
    """How far the COMMIT of the current transaction came; `none` also if the server has refused it."""
    unit: UnitOfWork | None = None
    """The unit of work of `run_transaction` that uses it now."""
    trusts_key = True
    """Whether a password may be encrypted with a key that the server sends, unverified."""
    has_lost_rows = False
    """Whether it was closed or lost before a stream's rows were all read."""
    closing = False
    """Whether it is being closed: then the last command is sent at any time."""
    _may_be_late = False
    """Whether the deadline does not apply now: for a rollback."""
    _public_key: Any = None

    def watch(self, deadline: StatementDeadline, wait_limit: float) -> None:
        """End its statements at `deadline` from now on."""
        self.deadline, self.wait_limit = deadline, wait_limit
        self.stream.before_command = self._before_command
        self.stream.wait = self._wait

    @property
    def open(self) -> bool:
        """Whether the connection is open."""
        return bool(super().open) and not self.stream.is_closed

    # What PyMySQL and SQLAlchemy call

    @property
    def server_public_key(self) -> Any:
        """The key that encrypts a password where there is no TLS; PyMySQL's parameter."""
        return self._public_key

    @server_public_key.setter
    def server_public_key(self, key: Any) -> None:
        # PyMySQL sets it to the key that the server sends (caching_sha2_password, sha256_password). One
        # in the way may send a key of his own, and would read the password.
        if not self.trusts_key:
            raise AttemptFailed(
                Fault.UNTRUSTED,
                "the server asked for a password that is encrypted with its own unverified key, on a "
                "connection without TLS. The password was not sent. Leave out ssl_disabled, or give the "
                "key: connect_args={'server_public_key': pem}",
            )
        self._public_key = key

    def close(self) -> None:
        """End the session, and close the connection."""
        self.closing = True
        self.lose_rows()
        super().close()

    def lose_rows(self) -> None:
        """Forget the rows of a stream that were not read. PyMySQL would read them when it is deleted."""
        result = getattr(self, "_result", None)
        if result is not None and result.unbuffered_active:
            result.unbuffered_active, self.has_lost_rows = False, True

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """
        Set the character set of the session.

        PyMySQL calls it in each connect. Then it sets the other variables of the session too, in the
        same round trip.
        """
        if self.deadline is not None or not self.session_settings:
            super().set_character_set(charset, collation)
            return
        names = f"NAMES {charset}" + (f" COLLATE {collation}" if collation else "")
        others = [f"{name}={value}" for name, value in self.session_settings.items()]
        super().query(f"SET {', '.join([names, *others])}")

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Send a statement, and read its answer or, if `unbuffered`, the beginning of it."""
        if self.unit is not None:
            self.unit.check_statement(sql, self._send)
        before, self.is_clean = self.is_clean, False
        try:
            affected = super().query(sql, unbuffered)
        except pymysql.Error as error:
            if isinstance(error, StatementTimeout) and not error.sent:
                self.is_clean = before
            cause = error if self.unit is None else self.unit.note_error(error)
            raise self.translate_failure(cause) from error.__cause__
        if self.unit is not None:
            self.unit.note_answer(self.server_status)
        return affected

    def _send(self, query: str) -> None:
        """Send one of lambdadb's own statements, past the unit of work."""
        self.is_clean = False
        super().query(query)

    def prove_open(self) -> None:
        """Find out whether the unit of work has committed its transaction inside of a statement."""
        if self.unit is not None:
            self.unit.prove_open(self._send)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """
        Return the rows of one of lambdadb's own queries, which read no table of a transaction.

        **Costs:** one round trip.
        """
        before = self.is_clean
        with self.cursor(pymysql.cursors.Cursor) as cursor:
            cursor.execute(query)
            rows = list(cursor.fetchall())
        self.is_clean = before
        return rows

    def begin(self) -> None:
        """Begin a transaction in autocommit. In MariaDB's sql_mode ORACLE a BEGIN begins a block."""
        self._send("START TRANSACTION")

    def cursor(self, cursor: Any = None) -> Any:
        """Make a cursor. One that streams rows knows that its connection may be lost."""
        return super().cursor(StreamCursor if cursor is SSCursor else cursor)

    @property
    def _commits_itself(self) -> bool:
        """Whether each statement is a transaction: autocommit is on, and no transaction was begun."""
        in_transaction = self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        return self.unit is None and bool(self.get_autocommit()) and not in_transaction

    def commit(self) -> None:
        """
        Commit, and remember how far it came.

        **Costs:** one round trip; none in autocommit.
        """
        self.commit_state = "none"
        if self.unit is not None:
            self.unit.check_commit()
        if self._commits_itself:
            self.is_clean = True
            self.commit_state = "done"
            return
        self.commit_state = "sent"
        try:
            super().commit()
        except pymysql.Error as error:
            self._commit_failed(error)
            raise self.translate_failure(error) from error.__cause__
        self.is_clean = True
        self.commit_state = "done"

    def _commit_failed(self, error: pymysql.Error) -> None:
        """Find out whether COMMIT was refused. If that is not certain, the connection counts as lost."""
        if isinstance(error, (StatementTimeout, InvocationClosed)):
            refused = not getattr(error, "sent", False)
        else:
            refused = error_number(error) in REFUSED_COMMITS
        if refused:
            self.commit_state = "none"
        else:
            self.stream.close()

    def rollback(self) -> None:
        """
        Roll back, within the reserve if necessary.

        **Costs:** one round trip; none after a COMMIT, in autocommit, or if nothing was sent.
        """
        if self.unit is not None:
            self.unit.ended = True
        if self.is_clean or not self.open:
            return
        if self.aborted:
            self.stream.close()
            return
        if not self._commits_itself:
            with self.allow_late():
                self.prove_open()
                super().rollback()
        self.is_clean = True

    def terminate(self) -> None:
        """Close the connection without a message to the server, which notices the end."""
        self.lose_rows()
        self.stream.close()

    # Deadlines

    @contextlib.contextmanager
    def allow_late(self) -> Iterator[None]:
        """Ignore the first of the deadline's two moments inside the block."""
        before, self._may_be_late = self._may_be_late, True
        try:
            yield
        finally:
            self._may_be_late = before

    def abort(self) -> None:
        """
        End the session, also while another thread waits for an answer on it.

        A running statement is cancelled. The thread that uses the connection finds it closed.
        """
        self.aborted = True
        if self.stream.is_closed:
            return
        if self.stream.expects_answer:
            self._cancel()
        self.stream.shutdown()

    def _before_command(self) -> None:
        """Raise if it is too late to send a command."""
        if self._may_be_late or self.closing or self.deadline is None:
            return
        if self.aborted:
            self.stream.close()
            raise InvocationClosed("the invocation that opened this connection has ended")
        times = self.deadline.times(self.wait_limit)
        if times is not None and self.deadline.clock.now() >= times[0]:
            raise StatementTimeout("the statement was not sent", sent=False)

    def _wait(self, descriptor: int, event: int) -> None:
        """Wait for the socket; cancel the statement at its deadline, and close a little later."""
        assert self.deadline is not None
        clock = self.deadline.clock
        while True:
            times = self.deadline.times(self.wait_limit)
            cancel_at, close_at = times or (clock.now() + _LONG, float("inf"))
            late = self.timed_out or self._may_be_late
            end = min(close_at, clock.now() + _LONG) if late else cancel_at
            if descriptor in clock.wait({descriptor: event}, end - clock.now()):
                return
            if times is None or clock.now() < end:
                continue
            if late or clock.now() >= close_at:
                self.timed_out = True
                raise StatementTimeout("no answer came, and the connection was closed", sent=True)
            self.timed_out = True
            self._cancel()

    def _cancel(self) -> None:
        """
        Ask the server to end the running statement, in a thread and on a session of its own.

        This connection is not used again, whether or not KILL QUERY arrives. That is sent to the same
        address: the host's name may mean another server by now, where the id is somebody else's.
        """
        dial, thread = self.dial, self.thread_id()
        if dial is None or self.stream.is_closed:
            return
        try:
            address = self.stream.peer
        except OSError:  # the server has ended the connection
            return

        def run() -> None:
            with contextlib.suppress(pymysql.Error, OSError):
                second = dial(address)
                try:
                    second.query(f"KILL QUERY {int(thread)}")
                finally:
                    second.close()

        run_detached(run)

    def translate_failure(self, error: pymysql.Error) -> pymysql.Error:
        """Return the error for a failed wait."""
        if self.timed_out and error_number(error) in _INTERRUPTED:
            return StatementTimeout("the statement was cancelled", sent=True)
        # abort() has caused any error of an aborted connection. A COMMIT has still to be asked for.
        if self.aborted and self.commit_state != "sent":
            return InvocationClosed("the invocation that opened this connection has ended")
        return error


def translate(error: BaseException) -> LambdaDBError | None:
    """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
    if isinstance(error, LambdaDBError):
        return error  # while connecting again; SQLAlchemy would wrap it in a StatementError
    if isinstance(error, UnitEnded):
        return TransactionEnded(str(error))
    if isinstance(error, StatementTimeout):
        return make_out_of_time(str(error), sent=error.sent)
    return make_invocation_ended() if isinstance(error, InvocationClosed) else None
