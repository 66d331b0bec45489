"""
The clock of an asynchronous engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from selectors import EVENT_READ
from typing import TypeVar

from sqlalchemy.util import await_only

from lambdadb.deadline import Clock

T = TypeVar("T")


class LoopClock(Clock):
    """The clock of an asynchronous engine: waiting lets other tasks run."""

    def wait(self, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        """Wait as `Clock.wait`, inside the greenlet in which SQLAlchemy runs its connects."""
        return await_only(_wait_until_ready(sockets, seconds))

    def awaited(self, function: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Await what `function()` returns on the running loop, for `seconds` at most."""

        async def call() -> T:
            task = asyncio.ensure_future(function())
            try:
                if not (await asyncio.wait({task}, timeout=seconds))[0]:
                    raise TimeoutError(f"no answer within {seconds:.1f} s")
                return task.result()
            finally:
                task.cancel()

        return await_only(call())


async def _wait_until_ready(sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
    loop = asyncio.get_running_loop()
    ready: set[int] = set()
    first = asyncio.Event()

    def mark(descriptor: int) -> None:
        ready.add(descriptor)
        first.set()

    try:
        for descriptor, event in sockets.items():
            add = loop.add_reader if event == EVENT_READ else loop.add_writer
            add(descriptor, mark, descriptor)
        # Not asyncio.wait_for: before Python 3.12 it can lose a cancellation that arrives together with
        # the result (github.com/python/cpython, issue 86296).
        timer = loop.call_later(max(seconds, 0.0), first.set)
        try:
            await first.wait()
        finally:
            timer.cancel()
    finally:
        for descriptor, event in sockets.items():
            remove = loop.remove_reader if event == EVENT_READ else loop.remove_writer
            remove(descriptor)
    return ready
