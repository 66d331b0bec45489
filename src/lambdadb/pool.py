"""
The pool: as many connections as the policy allows, usually one, each with one holder at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.pool.base import _ConnectionRecord

from lambdadb.errors import ConnectionInUse, InvocationEnded

if TYPE_CHECKING:
    from lambdadb.connect.connector import Connector

logger = logging.getLogger("lambdadb")

PING = 2.0  # seconds after which a ping is given up: a new connect takes milliseconds
_USED = "lambdadb.used"  # in a connection's `info`: when it was last used

# Modules whose frames are not the user's, by the first part of their names.
_PLUMBING = {"sqlalchemy", "contextlib", "tenacity"}
_OURS = "lambdadb"

# The usual way to a checkout, and how many frames it is away from `_entrance`.
_ENTRANCE, _DEPTH = getattr(Engine.connect, "__code__", None), 8

CheckoutSite = tuple[CodeType | None, int, int]
"""Who checked a connection out: a place in the code, its line and a thread. Made for each checkout."""

# Pools of this process: a forked child must not use, nor end, the sessions of its parent.
_pools: weakref.WeakSet[GuardedPool] = weakref.WeakSet()


class _SlotTaken(InvocationEnded):
    """`release()` has taken the place of a connection that was being opened."""


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
        connector: Connector,
        **keywords: Any,
    ) -> None:
        super().__init__(creator, **keywords)
        self.connector = connector
        self.driver = connector.driver
        self.policy = connector.settings.policy
        self.invocations = connector.invocations
        self.clock = connector.clock
        self._disposed = False
        self._retired: list[GuardedPool] = []
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        # Taking and giving back are single operations on a list or a dict, atomic in every Python: no
        # lock is held while connecting, which would block an event loop. None is a connection that is
        # not open yet. An entry that was taken from its holder is never used again, so that a late
        # return finds no place.
        self._free: list[ConnectionPoolEntry | None] = [None] * self.policy.connections
        self._holders: dict[object, CheckoutSite] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        free, holders = self._free, self._holders
        try:
            entry = free.pop()
        except IndexError:
            raise self._in_use() from None
        holder = _holder()
        try:
            if entry is None or entry.dbapi_connection is None or self._is_dead(entry):
                if entry is not None:
                    self._replace(entry)
                entry = self._connect(holders, holder)
            holders[entry] = holder
        except _SlotTaken:
            raise  # and given back already
        except BaseException:
            free.append(None)
            if entry is not None:
                entry.close()
            raise
        return entry

    def _replace(self, entry: ConnectionPoolEntry) -> None:
        if entry.dbapi_connection is not None:
            self.connector.replace_idle(self.clock.idle_since(entry.info[_USED]))
        entry.close()

    def _connect(self, holders: dict[object, CheckoutSite], holder: CheckoutSite) -> ConnectionPoolEntry:
        connecting = object()
        holders[connecting] = holder  # so that it can be named meanwhile, and given up
        entry, failure = None, None
        try:
            entry = self._create_connection()
        except BaseException as error:
            failure = error
        if holders.pop(connecting, None) is not None:
            if failure is not None:
                raise failure
            assert entry is not None
            return entry
        if entry is not None:
            entry.close()
        raise _SlotTaken("The invocation ended while it was connecting.") from failure

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        holder = self._holders.pop(record, None)
        try:
            if holder is None or not self._may_stay(record):
                record.close()
        finally:
            if holder is not None:
                record.info[_USED] = self.clock.moment()
                self._free.append(record)

    def _may_stay(self, entry: ConnectionPoolEntry) -> bool:
        """Whether a connection that comes back can serve the next checkout."""
        connection: Any = entry.driver_connection
        if connection is None or self._disposed or not (self.policy.keeps or self.invocations.active):
            return False
        return self.driver.is_reusable(connection)

    def release(self) -> None:
        """
        End an invocation: close what the policy does not keep, and what was never given back.

        A session still open would stay open, in its transaction, while the environment is frozen.
        """
        for pool in (self, *self._retired):
            if pool._holders:
                pool._end_held()
        self._retired.clear()
        if not self.policy.keeps:
            self._close_free()

    def _close_free(self) -> None:
        # Each is taken before it is closed: another thread may take it at this moment.
        free = self._free
        for _ in range(len(free)):
            try:
                entry = free.pop(0)
            except IndexError:
                return
            free.append(None)
            if entry is not None:
                entry.close()

    def _end_held(self) -> None:
        for entry, holder in list(self._holders.items()):
            if self._holders.pop(entry, None) is None:
                continue  # returned this moment
            self._free.append(None)
            logger.warning(
                "The invocation ended with a connection still checked out by %s: rolled back and "
                "closed. Close the session there, or use it in a `with` block.",
                _named(holder),
            )
            if isinstance(entry, _ConnectionRecord) and entry.dbapi_connection is not None:
                self._end(entry)

    def _end(self, entry: _ConnectionRecord) -> None:
        if entry.fairy_ref is None:
            entry.close()  # nobody has it: a listener failed while it was given back
            return
        self.driver.abort(entry.driver_connection)

    def _is_dead(self, entry: ConnectionPoolEntry) -> bool:
        connection: Any = entry.driver_connection
        state = self.driver.liveness(connection)
        if state == "closed":
            return True
        if state == "quiet" and self.clock.idle_since(entry.info[_USED]) < self.policy.ping_after:
            return False
        dialect: Any = self._dialect
        self.driver.set_wait_limit(connection, self.clock.now() + PING)
        try:
            return not dialect.do_ping(entry.dbapi_connection)
        except dialect.loaded_dbapi.Error:
            return True
        finally:
            self.driver.set_wait_limit(connection, None)

    def _in_use(self) -> ConnectionInUse:
        allowed = self.policy.connections
        holders = ", ".join(_named(holder) for holder in list(self._holders.values()))
        return ConnectionInUse(
            f"All {allowed} connection(s) of this engine are in use, held by: {holders or 'a connect'}. "
            "Two sessions on one connection would share a transaction. Close the first one before, pass "
            f"it on instead of opening another, or allow it with {type(self.policy).__name__}"
            f"(connections={allowed + 1})."
        )

    def status(self) -> str:
        """Text for people: how many connections are free and held."""
        held = len(self._holders)
        return f"{type(self).__name__} {type(self.policy).__name__}: {held} held, {len(self._free)} free"

    def dispose(self) -> None:
        """Close the connections that nobody holds; those held are closed as they come back."""
        self._disposed = True
        self._close_free()

    def recreate(self) -> GuardedPool:
        """A fresh pool with the same settings, for `Engine.dispose()`."""
        fresh = type(self)(
            self._creator,
            connector=self.connector,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        fresh._retired = [pool for pool in (self, *self._retired) if pool._holders]
        return fresh


def _forget_in_child() -> None:
    # Forgotten, not closed: psycopg closes a connection only in the process that opened it.
    for pool in list(_pools):
        pool._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _holder() -> CheckoutSite:
    """The first frame outside of the plumbing: a few attribute reads a frame, and no stack trace."""
    frame: FrameType | None = _entrance()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        plumbing = _is_plumbing.get(name)
        if not (_learn(name) if plumbing is None else plumbing):
            return frame.f_code, frame.f_lineno, threading.get_ident()
        frame = frame.f_back or _awaiting_frame()
    return None, 0, threading.get_ident()


def _entrance() -> FrameType:
    """Where SQLAlchemy was entered, if by `Engine.connect` (each frame looked at costs); else any."""
    try:
        entrance = sys._getframe(_DEPTH)
    except ValueError:  # the stack is not that deep
        return sys._getframe(2)
    return entrance if entrance.f_code is _ENTRANCE else sys._getframe(2)


_is_plumbing: dict[str, bool] = {}


def _learn(name: str) -> bool:
    root = name.partition(".")[0]
    plumbing = root in _PLUMBING or root == _OURS
    _is_plumbing[name] = plumbing
    return plumbing


def _named(holder: CheckoutSite) -> str:
    code, line, ident = holder
    where = f"{code.co_name} ({Path(code.co_filename).name}:{line})" if code else "unknown place"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return f"{where} in thread {names.get(ident, ident)}"


def _awaiting_frame() -> FrameType | None:
    """Where the task stands that runs SQLAlchemy's greenlet, whose own stack ends inside it."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet else None
    frame: FrameType | None = parent.gr_frame if parent else None
    return frame
