"""
The calls of one connection: one at a time, and none after the deadline.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Literal

from lambdadb.deadline import StatementDeadline
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed, DataApi
from lambdadb.drivers.data_api.dbapi import InvocationClosed, StatementTimeout

CALL_LIMIT = 50.0  # seconds; the service ends a call after 45


class Calls:
    """The calls, and what ends them."""

    wait_limit: float | None
    """A moment at which every call ends, while connecting and in pings."""
    closed = False
    """Whether the connection cannot be used any more."""
    aborted = False
    """Whether the invocation that used it is over."""
    commit_state: Literal["none", "sent", "done"] = "none"
    """How far the COMMIT of the current transaction came; `none` also if it was refused."""

    def __init__(
        self, api: DataApi, database: str, deadline: StatementDeadline, wait_limit: float | None
    ) -> None:
        self.api = api
        self.database = database
        self.deadline = deadline
        self.wait_limit = wait_limit
        self._busy = threading.Lock()
        self._may_be_late = False

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

    @contextlib.contextmanager
    def allow_late(self) -> Iterator[None]:
        """Ignore the first of the deadline's two moments inside the block."""
        before, self._may_be_late = self._may_be_late, True
        try:
            yield
        finally:
            self._may_be_late = before
