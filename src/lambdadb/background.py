"""
Run a blocking call in a thread, so that its caller can stop waiting.
"""

from __future__ import annotations

import contextlib
import contextvars
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")

_detached: set[threading.Thread] = set()

context_carriers: list[Callable[[], AbstractContextManager[object]]] = []
"""
Functions that carry a caller's context into the thread of a `BackgroundCall`.

Each is called in the caller's thread; the context manager that it returns is entered in the new one.
Context variables need no carrier: they are copied. A carrier is for a library that keeps its context in
a `threading.local`. A carrier must not raise.
"""


class BackgroundCall(Generic[T]):
    """
    `function()`, running in a thread of its own, in the context of its caller.

    Attributes:
        socket: The descriptor of a socket that becomes readable when the call has ended.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._reader, self._writer = socket.socketpair()
        self.socket = self._reader.fileno()
        self._carried = [carry() for carry in context_carriers]
        run = contextvars.copy_context().run
        try:
            threading.Thread(target=run, args=(self._run,), daemon=True).start()
        except RuntimeError:  # the process cannot start another thread
            self._reader.close()
            self._writer.close()
            raise

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                for context in self._carried:
                    stack.enter_context(context)
                self._result.append(self._function())
        except BaseException as error:
            self._error = error
        with self._writer, contextlib.suppress(OSError):  # the caller has stopped waiting
            self._writer.send(b"!")

    @property
    def ended(self) -> bool:
        """Whether the call has returned or raised."""
        return bool(self._result) or self._error is not None

    def result(self) -> T:
        """Return the result of the ended call, or raise its exception."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def close(self) -> None:
        """Stop waiting. The thread continues, and its result is dropped."""
        self._reader.close()


def run_detached(function: Callable[[], object]) -> None:
    """Run `function()` in a thread that nothing waits for, except a process that is about to end."""

    def run() -> None:
        try:
            function()
        finally:
            _detached.discard(thread)

    thread = threading.Thread(target=run, daemon=True)
    _detached.add(thread)
    try:
        thread.start()
    except BaseException:
        _detached.discard(thread)
        raise


def wait_for_detached(seconds: float) -> None:
    """Wait until every `run_detached` function has ended, `seconds` at most."""
    end = time.monotonic() + seconds
    for thread in list(_detached):
        thread.join(max(end - time.monotonic(), 0.0))
