"""
Every exception that lambdadb raises.

```
LambdaDBError                     safe_to_repeat: True only when it is proven
├─ InvalidSettings                raised while the engine is made
├─ ConnectionInUse                a checkout beyond the policy's connections
├─ OutOfTime                      the invocation's time ended first
├─ InvocationEnded                a session was used after the invocation that opened it
├─ TransactionEnded               a unit of work ended its own transaction
├─ CommitInDoubt                  COMMIT was sent; its outcome cannot be known
└─ ConnectFailed                  gave up connecting; no SQL was sent
   └─ DatabaseResuming            still waking up: answer 503 with Retry-After
```

All derive from `sqlalchemy.exc.SQLAlchemyError`, and those that report a failed connect also from
`sqlalchemy.exc.OperationalError`, so that `except` clauses written for plain SQLAlchemy still catch
them. A message says what happened, what it means and what to do; it never holds a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

if TYPE_CHECKING:
    from lambdadb.faults import Fault


class LambdaDBError(exc.SQLAlchemyError):
    """The base class of all errors of lambdadb."""

    safe_to_repeat: bool = False
    """True only when it is proven that repeating the work cannot do it twice."""


class InvalidSettings(LambdaDBError, ValueError):
    """A URL, keyword or setting cannot work. Raised while the engine is made."""


class ConnectionInUse(LambdaDBError):
    """
    All connections of the policy are checked out. The message names the code that uses them.

    By default it is raised at once, without waiting: an execution environment runs one invocation at a
    time, so the code that uses the connection is usually further up the same call stack. It would
    never give the connection back.
    """

    safe_to_repeat = True


class OutOfTime(LambdaDBError):
    """
    The invocation's time, less the reserve for its answer, was over. The running statement was
    cancelled, or nothing was sent.

    The transaction is rolled back, unless the statement was a COMMIT.
    """

    sent: bool
    """
    Whether the last statement had been sent. If not, it was certainly not executed. In autocommit the
    statements before it were, including earlier batches of the same `execute()`.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], {"sent": self.sent})


class InvocationEnded(LambdaDBError):
    """
    A session was used after the end of the invocation in which it began.

    An open session would be frozen with the environment, in its transaction. So a session that is still
    open when an invocation ends is rolled back and closed.
    """


class TransactionEnded(LambdaDBError):
    """
    A unit of work returned from a failed transaction, ended its transaction, or tried to commit it.

    PostgreSQL answers the COMMIT of a failed transaction with a rollback and no error. Without this
    exception its rows would be lost silently. A unit that continues after a COMMIT of its own could not
    be repeated without doing its first half twice.
    """

    committed: bool
    """Whether the unit itself has committed a part of its work. If so, do not call it again as it is."""

    def __init__(self, message: str, *, committed: bool = False) -> None:
        super().__init__(message)
        self.committed = committed

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], {"committed": self.committed})


class CommitInDoubt(LambdaDBError):
    """
    COMMIT was sent, its answer was lost, and its outcome cannot be found out.

    Look for the rows before you repeat the work. With `run_transaction(..., idempotency_key=...)`
    lambdadb does that itself. `__cause__` is the error of the question to the server, or of the COMMIT.
    `xid` is empty outside of `run_transaction`.
    """

    def __init__(self, xid: str, reason: str) -> None:
        which = f"transaction {xid}" if xid else "the transaction"
        super().__init__(
            f"It is not known whether {which} is committed: {reason}. Repeating the work may "
            "do it twice. Look for its rows first, or give run_transaction an idempotency_key, which "
            "proves the outcome."
        )
        self.xid = xid
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.xid, self.reason)


class ConnectFailed(LambdaDBError, exc.OperationalError):
    """
    No connection could be opened, and waiting longer would not help or was not possible.

    No SQL was sent. `orig` and `__cause__` are the driver's error of the last attempt.
    """

    safe_to_repeat = True

    fault: Fault
    """What was wrong with the last attempt."""
    waited: float
    """Seconds from the first attempt to giving up."""
    attempts: int
    """How many attempts were made."""
    retry_after: int | None
    """Whole seconds after which another try is worthwhile; None if only a change can help."""

    def __init__(
        self,
        message: str,
        *,
        fault: Fault,
        waited: float,
        attempts: int,
        orig: BaseException,
        retry_after: int | None = None,
    ) -> None:
        exc.OperationalError.__init__(self, None, None, orig)
        self.args = (message,)
        self.fault = fault
        self.waited = waited
        self.attempts = attempts
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        keywords = {
            "fault": self.fault,
            "waited": self.waited,
            "attempts": self.attempts,
            "orig": self.orig,
            "retry_after": self.retry_after,
        }
        return _rebuild, (type(self), self.args[0], keywords)


class DatabaseResuming(ConnectFailed):
    """
    The database is still waking up from its auto-pause, or restarting. Try again a little later.

    The attempts started its resume, which continues after this error. Behind HTTP answer 503 with
    `Retry-After: retry_after`, as `lambdadb.handler(engine, on_resuming="503")` does.
    """

    retry_after: int


def _rebuild(kind: Any, message: str, keywords: dict[str, Any]) -> LambdaDBError:
    error: LambdaDBError = kind(message, **keywords)
    return error


class LoginUnavailable(Exception):
    """
    A store has no login to give. The text, which reaches the user, says why and what to do.

    A connect that meets it raises `ConnectFailed` with `Fault.LOGIN`, as for any other exception of a
    store.
    """
