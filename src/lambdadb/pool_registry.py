"""
The pools of this process: what a fork makes them forget, and engines that are made again and again.
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


def add(pool: GuardedPool) -> None:
    """Remember a pool, weakly."""
    _pools.add(pool)


def add_new(pool: GuardedPool, *, in_lambda: bool) -> None:
    """
    Remember the pool of a new engine, and warn once if its engine belongs into module scope.

    An engine that is made in a handler is made again in each invocation, and each one leaves its
    sessions open until Python's garbage collector finds it. So an engine that is made while an
    invocation runs ends with it. In Lambda, where a handler may run without an invocation, an engine
    that is made again by the same line, for the same database, ends the earlier one. Tests make many
    engines so: outside of Lambda nothing is ended for that.
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


def _forget_in_child() -> None:
    # Forgotten, not closed: a driver closes a connection only in the process that opened it.
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
