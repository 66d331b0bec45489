"""
Who checked a connection out: the place in the user's code, the thread or task, and the invocation.
"""

from __future__ import annotations

import sys
import threading
import weakref
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

# Modules whose frames are not the user's, by the first part of their names or by the whole name.
_PLUMBING = {"sqlalchemy", "contextlib", "tenacity"} | {
    f"lambdadb.{name}" for name in ("aio", "checkout", "engine", "plugin", "pool", "transaction")
}


class Checkout:
    """
    One checkout, from its first moment on.

    Attributes:
        invocation: The number of the invocation in which it was made; 0 outside.
        actor: The thread, or with an asynchronous engine the task. Who waits for himself waits forever.
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


def find_user_code() -> tuple[CodeType | None, int]:
    """
    The first frame that is not plumbing, as its code and line.

    A few attribute reads for each frame, and no stack trace: it is done for each checkout.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        plumbing = _is_plumbing.get(name)
        if not (_learn(name) if plumbing is None else plumbing):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back or _awaiting_frame()
    return None, 0


def describe_code(code: CodeType | None, line: int) -> str:
    """A place in the code, for people."""
    return f"{code.co_name} ({Path(code.co_filename).name}:{line})" if code else "unknown code"


_is_plumbing: dict[str, bool] = {}


def _learn(name: str) -> bool:
    plumbing = name in _PLUMBING or name.partition(".")[0] in _PLUMBING
    _is_plumbing[name] = plumbing
    return plumbing


def _awaiting_frame() -> FrameType | None:
    """Where the task stands that runs SQLAlchemy's greenlet, whose own stack ends inside it."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet else None
    frame: FrameType | None = parent.gr_frame if parent else None
    return frame


def _current_task() -> Any:
    """The task that runs, as a reference that does not keep it alive; None if there is none."""
    import asyncio

    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    return None if task is None else weakref.ref(task)
