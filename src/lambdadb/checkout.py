"""
Which code checked a connection out, and which checkouts wait for one.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ
from types import CodeType, FrameType
from typing import Any, TypeVar

from lambdadb.deadline import Clock, Deadline

T = TypeVar("T")

# Modules whose frames are skipped, by the first part of their names or by the whole name.
_SKIPPED = {"sqlalchemy", "contextlib", "tenacity"} | {
    f"lambdadb.{name}"
    for name in (
        "aio",
        "checkout",
        "engine",
        "outcome",
        "plugin",
        "pool",
        "proxy_check",
        "slot",
        "transaction",
    )
}


class Checkout:
    """
    One checkout.

    Attributes:
        invocation: The number of the invocation in which it was made; 0 outside.
        actor: The thread, or with an asynchronous engine the task. It must not wait for itself.
    """

    __slots__ = ("_code", "_line", "_thread", "actor", "invocation")

    def __init__(self, *, invocation: int, asynchronous: bool) -> None:
        self.invocation = invocation
        self._thread = threading.get_ident()
        self._code, self._line = find_user_code()
        self.actor: object = _current_task() if asynchronous else self._thread

    def __str__(self) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        where = describe_code(self._code, self._line)
        return f"{where} in thread {names.get(self._thread, self._thread)}"


class Waiters:
    """The checkouts that wait for a connection. The one that has waited longest is woken first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sockets: deque[socket.socket] = deque()

    def __len__(self) -> int:
        return len(self._sockets)

    def wake_next(self) -> None:
        """Wake the checkout that has waited longest: a connection may be free."""
        if self._sockets:
            with contextlib.suppress(IndexError, OSError):  # another thread was first
                self._sockets.popleft().send(b"!")

    def wait(self, take: Callable[[], T | None], end: Deadline) -> T | None:
        """
        Call `take` each time that a connection may be free, until it returns one.

        None after `end`. What `take` raises ends the wait.
        """
        taken: T | None = None
        reader, writer = socket.socketpair()
        with reader, writer:
            self._sockets.append(writer)
            try:
                while (taken := take()) is None and (left := end.remaining(self._clock)):
                    if self._clock.wait({reader.fileno(): EVENT_READ}, left):
                        reader.recv(1)
                        self._sockets.appendleft(writer)
                return taken
            finally:
                with contextlib.suppress(ValueError):
                    self._sockets.remove(writer)
                if taken is None:  # a cancelled task may have been woken: wake the next one
                    self.wake_next()


def find_user_code() -> tuple[CodeType | None, int]:
    """
    Return code and line of the first frame that is neither lambdadb's nor SQLAlchemy's.

    This is done for each checkout. So it reads a few attributes of each frame, and makes no stack trace.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        skipped = _is_skipped.get(name)
        if not (_remember(name) if skipped is None else skipped):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back or _awaiting_frame()
    return None, 0


def describe_code(code: CodeType | None, line: int) -> str:
    """Return function, file and line as a text."""
    return f"{code.co_name} ({Path(code.co_filename).name}:{line})" if code else "unknown code"


_is_skipped: dict[str, bool] = {}


def _remember(name: str) -> bool:
    skipped = name in _SKIPPED or name.partition(".")[0] in _SKIPPED
    _is_skipped[name] = skipped
    return skipped


def _awaiting_frame() -> FrameType | None:
    """Return the frame of the task that runs SQLAlchemy's greenlet, which has a stack of its own."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet else None
    frame: FrameType | None = parent.gr_frame if parent else None
    return frame


def _current_task() -> Any:
    """Return a weak reference to the running task; None if there is none."""
    import asyncio

    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    return None if task is None else weakref.ref(task)
