"""
The pools of this process.

A forked child drops their connections. The end of the process and a snapshot of it close them. A warning
is logged for engines that are made in handlers.
"""

from __future__ import annotations

import logging
import os
import weakref
from types import CodeType
from typing import TYPE_CHECKING

from lambdadb.checkout import describe_code

if TYPE_CHECKING:
    from lambdadb.pool import GuardedPool

logger = logging.getLogger("lambdadb")

_pools: weakref.WeakSet[GuardedPool] = weakref.WeakSet()
_warned: set[CodeType | None] = set()
_closing = False


def add(pool: GuardedPool) -> None:
    """Add a pool. The registry does not keep it alive."""
    _pools.add(pool)


def add_new(pool: GuardedPool, *, in_lambda: bool) -> None:
    """
    Add the pool of a new engine, and warn once if the engine should be made in module scope.

    An engine that is made in a handler is made again in each invocation. Each one would leave its
    sessions open until Python's garbage collector finds it. So the sessions of an engine that is made
    during an invocation are closed at the end of that invocation. In Lambda a handler may run without
    an invocation. There, an engine that the same line makes again for the same database closes the
    sessions of the engine before it. Outside of Lambda this is not done, since tests make many engines.
    """
    others = list(_pools)
    around = [other for other in others if other.invocations.active]
    for other in around:
        other.made_inside.add(pool)
    earlier = [other for other in others if in_lambda and _is_same_engine(other, pool)]
    for other in earlier:
        other.close_all()
    code, line = pool.made_at
    if (around or earlier) and code not in _warned:
        _warned.add(code)
        logger.warning(
            "%s makes an engine inside a handler. Each new engine connects again; the sessions of the "
            "last one are closed when its invocation ends or the next engine is made. Make the engine "
            "once, in module scope.",
            describe_code(code, line),
        )
    _pools.add(pool)


def _is_same_engine(one: GuardedPool, other: GuardedPool) -> bool:
    return one.made_at == other.made_at and one.url == other.url and one.policy == other.policy


def close_sessions() -> None:
    """
    End every session of this process and drop the logins that stores have read.

    Until `keep_sessions`, a connection that is opened nevertheless is closed when it is returned.
    """
    global _closing
    _closing = True
    for pool in list(_pools):
        pool.end_sessions()
        pool.connector.forget_logins()


def keep_sessions() -> None:
    """Keep connections again, as the policies say: this process is a new copy of a snapshot."""
    global _closing
    _closing = False


def is_closing() -> bool:
    """Whether no connection may be kept, since the process ends or a snapshot of it is taken."""
    return _closing


def _forget_in_child() -> None:
    # Dropped, not closed: only the process that opened a connection may close it.
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
