"""
A blocking call that nobody has to wait for longer than the deadline allows.
"""

from __future__ import annotations

import contextlib
import contextvars
import socket
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """
    `function()` running in a thread of its own.

    Attributes:
        socket: The descriptor of a socket that becomes readable when the call has ended.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._reader, self._writer = socket.socketpair()
        self.socket = self._reader.fileno()
        # What the caller has in its context, such as the span it is in, holds for the call too.
        run = contextvars.copy_context().run
        try:
            threading.Thread(target=run, args=(self._run,), daemon=True).start()
        except RuntimeError:  # the process may not have another one
            self._reader.close()
            self._writer.close()
            raise

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error
        with self._writer, contextlib.suppress(OSError):  # nobody waits any more
            self._writer.send(b"!")

    @property
    def ended(self) -> bool:
        """Whether it has returned or raised."""
        return bool(self._result) or self._error is not None

    def result(self) -> T:
        """What the ended call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def close(self) -> None:
        """Wait no longer: the thread ends by itself, unheard."""
        self._reader.close()
