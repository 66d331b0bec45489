"""
The pool: as many connections as the policy allows, usually one, each with one holder at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.pool.base import _ConnectionRecord

from lambdadb.deadline import Clock, Scope
from lambdadb.errors import ConnectionInUse
from lambdadb.settings import Settings

if TYPE_CHECKING:
    from lambdadb.psycopg import SocketState

logger = logging.getLogger("lambdadb")

# Frames below these folders are not the user's: SQLAlchemy's and ours.
_PLUMBING = (os.path.dirname(sqlalchemy.__file__), os.path.dirname(__file__))  # noqa: PTH120


@dataclass(frozen=True)
class Holder:
    """Who checked a connection out: a place in the code and a thread."""

    code: CodeType | None
    line: int
    thread: int

    def __str__(self) -> str:
        where = "unknown place"
        if self.code is not None:
            where = f"{self.code.co_name} ({os.path.basename(self.code.co_filename)}:{self.line})"  # noqa: PTH119
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return f"{where} in thread {names.get(self.thread, self.thread)}"


class GuardedPool(Pool):
    """
    A `StaticPool` that cannot mix two transactions.

    `StaticPool` hands its one connection to everybody who asks, so two sessions share a transaction
    and one's rollback undoes the other's work without an error; and it opens one connection for each
    thread that comes first. Here a connection has one holder, and a checkout beyond
    `policy.connections` raises `ConnectionInUse` at once, also while the first connect is under way.

    **Costs:** a checkout polls the socket, no round trip; after `policy.ping_after` unused, one.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        settings: Settings,
        scope: Scope,
        clock: Clock,
        socket_state: Callable[[Any], SocketState],
        **keywords: Any,
    ) -> None:
        super().__init__(creator, **keywords)
        self.settings = settings
        self.policy = settings.policy
        self.scope = scope
        self.clock = clock
        self._socket_state = socket_state
        # Taking and giving back are single operations on a list, atomic in every Python: no lock is
        # held while connecting, which would block an event loop. None is a connection not yet open.
        self._free: list[ConnectionPoolEntry | None] = [None] * self.policy.connections
        self._holders: dict[ConnectionPoolEntry | None, Holder] = {}
        self._used: dict[ConnectionPoolEntry, tuple[float, float]] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            entry = self._free.pop()
        except IndexError:
            raise self._in_use() from None
        holder = _holder()
        if entry is None:
            self._holders[None] = holder  # so that it can be named while it connects
            try:
                entry = self._create_connection()
            except BaseException:
                self._free.append(None)
                raise
            finally:
                self._holders.pop(None, None)
        elif entry.dbapi_connection is not None and self._is_dead(entry):
            entry.invalidate()  # SQLAlchemy opens another one in its place
        self._holders[entry] = holder
        return entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self._holders.pop(record, None) is None:
            record.close()  # the engine was disposed of meanwhile
            return
        if not (self.policy.keeps or self.scope.active) or self._is_spent(record):
            record.close()
        self._used[record] = self.clock.moment()
        self._free.append(record)

    def release(self) -> None:
        """
        End an invocation: close what the policy does not keep, and what was never given back.

        A session still open would stay open, in its transaction, while the environment is frozen.
        """
        for entry, holder in list(self._holders.items()):
            fairy = (
                entry.fairy_ref() if isinstance(entry, _ConnectionRecord) and entry.fairy_ref else None
            )
            if fairy is None:
                continue  # it is just connecting, in a thread that the invocation left behind
            logger.warning(
                "The invocation ended with a connection still checked out by %s: rolled back and "
                "closed. Close the session there, or use it in a `with` block.",
                holder,
            )
            fairy.invalidate()
        if not self.policy.keeps:
            self._close_free()

    def _is_spent(self, entry: ConnectionPoolEntry) -> bool:
        # A cancel that was sent may arrive late, and would then hit another statement.
        return getattr(entry.driver_connection, "expired", False)

    def _is_dead(self, entry: ConnectionPoolEntry) -> bool:
        state = self._socket_state(entry.driver_connection)
        if state == "closed":
            return True
        unused = self.clock.idle_since(self._used[entry])
        if state == "quiet" and unused < self.policy.ping_after:
            return False
        dialect: Any = self._dialect
        try:
            return not dialect.do_ping(entry.dbapi_connection)
        except dialect.loaded_dbapi.Error:
            return True

    def _in_use(self) -> ConnectionInUse:
        allowed = self.policy.connections
        holders = ", ".join(str(holder) for holder in list(self._holders.values()))
        return ConnectionInUse(
            f"All {allowed} connection(s) of this engine are in use, held by: {holders or 'a connect'}. "
            "Two sessions on one connection would share a transaction. Close the first one before, pass "
            f"it on instead of opening another, or allow it with {type(self.policy).__name__}"
            f"(connections={allowed + 1})."
        )

    def _close_free(self) -> None:
        for entry in self._free:
            if entry is not None:
                entry.close()

    def status(self) -> str:
        """Text for people: how many connections are free and held."""
        held = len(self._holders)
        return f"{type(self).__name__} {type(self.policy).__name__}: {held} held, {len(self._free)} free"

    def dispose(self) -> None:
        """Close the connections that nobody holds; those held are closed as they come back."""
        free = [entry for entry in self._free if entry is not None]
        self._free[:] = [None] * self.policy.connections
        self._holders.clear()
        for entry in free:
            entry.close()

    def recreate(self) -> GuardedPool:
        """A fresh pool with the same settings, for `Engine.dispose()`."""
        return type(self)(
            self._creator,
            settings=self.settings,
            scope=self.scope,
            clock=self.clock,
            socket_state=self._socket_state,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )


def _holder() -> Holder:
    """The first frame outside of the plumbing: two attribute reads a frame, and no stack trace."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_PLUMBING):
        frame = frame.f_back or _awaiting_frame()
    if frame is None:
        return Holder(None, 0, threading.get_ident())
    return Holder(frame.f_code, frame.f_lineno, threading.get_ident())


def _awaiting_frame() -> FrameType | None:
    """Where the task stands that runs SQLAlchemy's greenlet, whose own stack ends inside it."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet else None
    frame: FrameType | None = parent.gr_frame if parent else None
    return frame
