"""
Virtual time: code that waits runs in greenlets, and time jumps from one event to the next.

A plain heap of events is used, and greenlets: so the library's own code waits here without a change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from greenlet import getcurrent, greenlet

from lambdadb.deadline import Clock


class VirtualTime:
    """The present moment, and the events to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._waiting: dict[int, _Wait] = {}
        self._ready: set[int] = set()
        self._hub = getcurrent()

    def at(self, moment: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function at a moment, from the loop of events. It must not wait."""
        heappush(self._events, (moment, next(self._numbers), function, arguments))

    def start(self, moment: float, function: Callable[..., object], *arguments: Any) -> None:
        """Start a function at a moment, which may wait."""
        self.at(moment, lambda: greenlet(function).switch(*arguments))

    def run(self) -> None:
        """Go through all events."""
        self._hub = getcurrent()
        events = self._events
        while events:
            self.now, _, function, arguments = heappop(events)
            function(*arguments)

    def wait(self, sockets: Iterable[int], seconds: float) -> list[int]:
        """Wait until a socket is ready, or the seconds are over; the sockets that are ready."""
        wait = _Wait(getcurrent(), tuple(sockets))
        if not self._ready.isdisjoint(wait.sockets):
            return self._take_ready(wait.sockets)
        for socket in wait.sockets:
            self._waiting[socket] = wait
        self.at(self.now + max(seconds, 0.0), self._resume, wait)
        self._hub.switch()
        for socket in wait.sockets:
            self._waiting.pop(socket, None)
        return self._take_ready(wait.sockets)

    def make_ready(self, socket: int) -> None:
        """Wake who waits for a socket now, or will."""
        self._ready.add(socket)
        if (wait := self._waiting.get(socket)) is not None:
            self._resume(wait)

    def forget(self, socket: int) -> None:
        """Drop a socket that was closed."""
        self._ready.discard(socket)

    def _take_ready(self, sockets: tuple[int, ...]) -> list[int]:
        ready = [socket for socket in sockets if socket in self._ready]
        self._ready.difference_update(ready)
        return ready

    @staticmethod
    def _resume(wait: _Wait) -> None:
        if not wait.over:
            wait.over = True
            wait.task.switch()


class _Wait:
    """A greenlet that waits."""

    __slots__ = ("over", "sockets", "task")

    def __init__(self, task: greenlet, sockets: tuple[int, ...]) -> None:
        self.task = task
        self.sockets = sockets
        self.over = False


class VirtualClock(Clock):
    """The clock of lambdadb's own code in virtual time."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def now(self) -> float:
        """Return the present moment."""
        return self._time.now

    def moment(self) -> tuple[float, float]:
        """Return the present moment, twice."""
        return self._time.now, self._time.now

    def idle_since(self, moment: tuple[float, float]) -> float:
        """Return the seconds since `moment`."""
        return self._time.now - moment[0]

    def wait(self, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        """Wait in virtual time."""
        return self._time.wait(sockets, seconds)
