"""
Clocks, deadlines, and the invocations that are running.
"""

from __future__ import annotations

import contextlib
import select
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from selectors import EVENT_READ
from typing import TypeVar

from lambdadb.background import BackgroundCall
from lambdadb.errors import InvalidSettings

T = TypeVar("T")


class Clock:
    """
    Tells the time and waits.

    Tests pass a virtual clock. Asynchronous engines have one that waits on the event loop.
    """

    def now(self) -> float:
        """Return the seconds of a clock that never goes back."""
        return time.monotonic()

    def idle_since(self, moment: tuple[float, float]) -> float:
        """Return the seconds since `moment`, a value of `moment()`, including frozen time."""
        # AWS does not document whether the monotonic clock of a frozen environment continues, and the
        # wall clock may be set back. So the larger of the two differences counts.
        return max(time.monotonic() - moment[0], time.time() - moment[1])

    def moment(self) -> tuple[float, float]:
        """Return the present moment on the monotonic clock and on the wall clock."""
        return time.monotonic(), time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self.wait({}, seconds)

    def wait(self, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        """
        Wait until one of `sockets` is ready, `seconds` at most; without sockets, sleep.

        Args:
            sockets: File descriptor to `selectors.EVENT_READ` or `EVENT_WRITE`.

        Returns:
            The descriptors that are ready; none if the time was over first.
        """
        if not sockets:
            time.sleep(max(seconds, 0.0))
            return ()
        poll = select.poll()
        for descriptor, event in sockets.items():
            poll.register(descriptor, select.POLLIN if event == EVENT_READ else select.POLLOUT)
        return [descriptor for descriptor, _ in poll.poll(max(seconds, 0.0) * 1000.0)]

    def result(self, function: Callable[[], T], seconds: float) -> T:
        """
        Call `function()`, which may block, in a thread of its own, and return its result.

        Raises:
            TimeoutError: It takes longer than `seconds`. The thread continues; its result is dropped.
        """
        call = BackgroundCall(function)
        try:
            if not self.wait({call.socket: EVENT_READ}, seconds):
                raise TimeoutError(f"no answer within {seconds:.1f} s")
            return call.result()
        finally:
            call.close()

    def awaited(self, function: Callable[[], Awaitable[T]], seconds: float) -> T:
        """
        Await what `function()` returns on the engine's event loop, and return the result.

        Raises:
            InvalidSettings: The engine is not asynchronous.
        """
        del function, seconds
        raise InvalidSettings("Asynchronous credentials need lambdadb.aio.create_async_engine.")


@dataclass(repr=False, eq=False)
class Deadline:
    """A moment on a `Clock` by which something has to end."""

    at: float

    def remaining(self, clock: Clock) -> float:
        """Return the seconds left, at least 0."""
        return max(self.at - clock.now(), 0.0)

    def earlier(self, other: Deadline | None) -> Deadline:
        """Return the one of the two that comes first."""
        return self if other is None or self.at <= other.at else other


def lambda_deadline(context: object, clock: Clock, *, in_lambda: bool) -> Deadline | None:
    """
    Return the end of the invocation of Lambda's `context`; None if the context has none.

    Outside of Lambda any object is accepted as the context: `{}`, a `Mock`, a `SimpleNamespace`.

    Raises:
        InvalidSettings: In Lambda, `context` is not the context object.
    """
    if context is None:
        return None
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    milliseconds = remaining() if callable(remaining) else None
    if isinstance(milliseconds, (int, float)):
        return Deadline(clock.now() + milliseconds / 1000.0)
    if in_lambda:
        raise InvalidSettings(
            f"context is {type(context).__name__}, without get_remaining_time_in_millis(). "
            "Pass the second argument of the Lambda handler, or None if there is none."
        )
    return None


@dataclass(repr=False, eq=False)
class RunningInvocation:
    """One invocation that has begun and not ended."""

    deadline: Deadline | None = None
    function_arn: str = ""
    """The ARN by which the function was invoked."""


class ActiveInvocations:
    """
    The running invocations of an engine. Its pool and its connector share this object.

    It belongs to the engine and is not a context variable, because threads that a handler starts must
    see it too. An execution environment runs one invocation at a time. Nested invocations, and those of
    a test or a development server, may overlap.

    It has weak references to the invocations. If an exception from a signal handler interrupts the end
    of an invocation, the invocation is over when nothing refers to it any more.
    """

    def __init__(self) -> None:
        self._running: list[weakref.ref[RunningInvocation]] = []
        self._begun = 0
        self._number = 0
        self.deadline: Deadline | None = None
        """The earliest deadline of the running invocations."""
        self.latest_deadline: Deadline | None = None
        """Their latest one, for what cannot be changed when an invocation ends."""

    def enter(self, one: RunningInvocation) -> None:
        """Begin an invocation. The caller keeps a reference to it until it ends."""
        if not self._running:
            self._number += 1
        self._running.append(weakref.ref(one, self._remove))
        self._begun += 1
        self._update()

    def leave(self, one: RunningInvocation) -> int | None:
        """
        End an invocation. They may end in any order.

        Returns:
            The number that has ended with it; None while others with the same number run. An invocation
            that another thread begins at this moment has the next number.
        """
        number = self._number
        self._remove(weakref.ref(one))
        return None if self._running else number

    def _remove(self, one: weakref.ref[RunningInvocation]) -> None:
        with contextlib.suppress(ValueError):
            self._running.remove(one)
        self._update()

    @property
    def number(self) -> int:
        """The number of the running invocation, from 1; overlapping ones share it. 0: none runs."""
        return self._number if self._running else 0

    @property
    def cold(self) -> bool:
        """Whether no invocation has ended in this environment."""
        return self._begun <= len(self._running)

    @property
    def active(self) -> bool:
        """Whether an invocation is running."""
        return bool(self._running)

    @property
    def alias(self) -> str:
        """The alias by which the latest running invocation was invoked; empty if there is none."""
        # arn:aws:lambda:REGION:ACCOUNT:function:NAME:QUALIFIER
        arns = (one.function_arn.split(":") for one in reversed(self._alive()))
        return next((parts[7] for parts in arns if len(parts) > 7), "")

    def _alive(self) -> list[RunningInvocation]:
        return [one for reference in list(self._running) if (one := reference()) is not None]

    def _update(self) -> None:
        deadlines = [one.deadline for one in self._alive() if one.deadline is not None]
        deadlines.sort(key=lambda deadline: deadline.at)
        self.deadline = deadlines[0] if deadlines else None
        self.latest_deadline = deadlines[-1] if deadlines else None


@dataclass(repr=False, eq=False)
class StatementDeadline:
    """The deadline of an engine's statements: the invocation's end less a reserve."""

    invocations: ActiveInvocations
    clock: Clock
    reserve: float
    """Seconds before the invocation's end at which the running statement is cancelled."""
    function: str | None = None
    """The function in the database that limits a transaction's time; None: the server gets no limit."""

    def times(self, limit: float | None) -> tuple[float, float] | None:
        """
        Return when a statement is cancelled, and when its connection is closed if no answer comes.

        The second is half of the reserve later. With an earlier `limit` of the connection both are that
        moment. None: the statement has no deadline.
        """
        deadline = self.invocations.deadline
        cancel_at = None if deadline is None else deadline.at - self.reserve
        if limit is not None and (cancel_at is None or limit < cancel_at):
            return limit, limit
        return None if cancel_at is None else (cancel_at, cancel_at + self.reserve / 2)
