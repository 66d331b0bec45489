"""
The place of one connection in the pool.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

# SQLAlchemy's record of a connection in a pool. Its public base class cannot be made.
from sqlalchemy.pool.base import _ConnectionRecord

from lambdadb.checkout import Checkout

if TYPE_CHECKING:
    from lambdadb.pool import GuardedPool


class Slot(_ConnectionRecord):
    """
    The pool's record for one connection, and for the one checkout that may use it.

    It has no lock, because a lock that is held during a connect would block an event loop. Taking,
    freeing and retiring are one operation on a dict each, which is atomic. An exception from a signal
    handler can come between any two lines. It cannot lose a slot, because taking a slot and recording
    its checkout are the same operation, and because a retired slot always gets a successor.
    """

    def __init__(self, pool: GuardedPool) -> None:
        super().__init__(pool, connect=False)
        self._pool = pool
        self._state: dict[str, Any] = {}
        self.idle_from: tuple[float, float] | None = None
        """When its connection was returned, if another checkout can use it."""
        self.invocation = 0
        """The number of the invocation in which its connection was last used."""

    @property
    def taken_by(self) -> Checkout | None:
        """The checkout that has taken it; None if it is free."""
        return self._state.get("checkout")

    def take(self, checkout: Checkout) -> bool:
        """Take it for a checkout; False if another checkout has it."""
        return self._state.setdefault("checkout", checkout) is checkout and not self.is_retired

    def free(self) -> None:
        """Make it free: its checkout has ended."""
        self._state.pop("checkout", None)

    @property
    def is_retired(self) -> bool:
        """Whether it is out of the pool. A connection that is returned to it is closed."""
        return "retired" in self._state

    def retire(self) -> bool:
        """Take it out of the pool, so that a late return frees no other slot. True once."""
        token = object()
        return self._state.setdefault("retired", token) is token

    def successor(self) -> Slot:
        """Return the slot that replaces this one. It is the same for every caller."""
        slot: Slot = self._state.setdefault("successor", Slot(self._pool))
        return slot

    def checkin(self, *arguments: Any, **keywords: Any) -> None:
        """Return its connection to the pool. A listener to `checkin` that raises loses no slot."""
        try:
            super().checkin(*arguments, **keywords)
        except BaseException:
            self._pool.give_up(self)
            raise

    def is_lost(self, connect: CodeType) -> bool:
        """Whether nothing can free it: no connection is in use, and no call of `connect` takes it."""
        reference = self.fairy_ref
        if reference is not None and reference() is not None:
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is connect and frame.f_locals.get("checkout") is self.taken_by:
                return False
            frame = frame.f_back
        return True
