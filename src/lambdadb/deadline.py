"""
Time: the clock that everything waits on, the moment by which to be done, and the invocation whose
moment it is. No other module reads a clock or sleeps.
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
    Monotonic seconds, and the one way to wait.

    Tests pass a virtual one; `lambdadb.aio` passes one that waits on the event loop.
    """

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def idle_since(self, moment: tuple[float, float]) -> float:
        """Seconds since `moment`, a value of `moment()`, frozen time included."""
        # Whether a frozen environment's monotonic clock goes on is documented nowhere, and its wall
        # clock may be set back: of the two, the one that saw more time pass is believed.
        return max(time.monotonic() - moment[0], time.time() - moment[1])

    def moment(self) -> tuple[float, float]:
        """Now, on both clocks."""
        return time.monotonic(), time.time()

    def sleep(self, seconds: float) -> None:
        """Wait for nothing but time."""
        self.wait({}, seconds)

    def wait(self, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        """
        Wait until one of `sockets` is ready, `seconds` at most; without sockets, sleep.

        Args:
            sockets: File descriptor to `selectors.EVENT_READ` or `EVENT_WRITE`.

        Returns:
            The descriptors that are ready; none when the time was over first.
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
        What `function()` returns, which may block, in a thread of its own.

        Raises:
            TimeoutError: It takes longer than `seconds`; it goes on, unheard.
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
        As `result`, for a function that returns an awaitable, on the event loop of `lambdadb.aio`.

        Raises:
            InvalidSettings: There is none.
        """
        del function, seconds
        raise InvalidSettings("Asynchronous credentials need lambdadb.aio.create_async_engine.")


@dataclass(repr=False, eq=False)
class Deadline:
    """A moment on a `Clock` by which to be done."""

    at: float

    def remaining(self, clock: Clock) -> float:
        """Seconds left; never negative."""
        return max(self.at - clock.now(), 0.0)

    def earlier(self, other: Deadline | None) -> Deadline:
        """The one of the two that comes first."""
        return self if other is None or self.at <= other.at else other


def lambda_deadline(context: object, clock: Clock, *, in_lambda: bool) -> Deadline | None:
    """
    The end of the invocation that Lambda's `context` describes; None if it describes none.

    Outside of Lambda anything may stand for the context: `{}`, a `Mock`, a `SimpleNamespace`.

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
    """The ARN that it was invoked by."""


class ActiveInvocations:
    """
    The invocations of an engine that are running; shared by its pool and its connects.

    It belongs to the engine and not to a context variable, because threads that a handler starts must
    see it too. An execution environment runs one invocation at a time; nested ones, and those of a
    test or of a development server, may overlap.

    It holds them weakly. One whose end was interrupted, as by an exception from a signal handler, is
    over when nobody refers to it any more, and not running for ever.
    """

    def __init__(self) -> None:
        self._running: list[weakref.ref[RunningInvocation]] = []
        self._begun = 0
        self._number = 0
        self.deadline: Deadline | None = None
        """The earliest of their deadlines."""

    def enter(self, one: RunningInvocation) -> None:
        """An invocation begins; the caller keeps a reference to it until it ends."""
        if not self._running:
            self._number += 1
        self._running.append(weakref.ref(one, self._remove))
        self._begun += 1
        self._update()

    def leave(self, one: RunningInvocation) -> int | None:
        """
        An invocation ends, in whatever order.

        Returns:
            The number that has ended with it; None while others run that share it. One that another
            thread begins at this moment has the next number, so what ends is never its own.
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
        """The number of what runs, from 1; invocations that overlap share it. 0: none runs."""
        return self._number if self._running else 0

    @property
    def cold(self) -> bool:
        """Whether no invocation has ended in this environment."""
        return self._begun <= len(self._running)

    @property
    def active(self) -> bool:
        """Whether any is running."""
        return bool(self._running)

    @property
    def alias(self) -> str:
        """The alias that the last of them was invoked by; empty if by none."""
        # arn:aws:lambda:REGION:ACCOUNT:function:NAME:QUALIFIER
        arns = (one.function_arn.split(":") for one in reversed(self._alive()))
        return next((parts[7] for parts in arns if len(parts) > 7), "")

    def _alive(self) -> list[RunningInvocation]:
        return [one for reference in list(self._running) if (one := reference()) is not None]

    def _update(self) -> None:
        deadlines = [one.deadline for one in self._alive() if one.deadline is not None]
        self.deadline = min(deadlines, key=lambda deadline: deadline.at, default=None)


@dataclass(repr=False, eq=False)
class StatementDeadline:
    """Until when an engine's statements may run: the invocation's time less a reserve."""

    invocations: ActiveInvocations
    clock: Clock
    reserve: float
    """Seconds before the invocation's end at which the running statement is cancelled."""

    def times(self, limit: float | None) -> tuple[float, float] | None:
        """
        When a statement is cancelled, and when its connection is closed if it does not answer: half
        of the reserve later, or at once for a `limit` of the connection. None: never.
        """
        deadline = self.invocations.deadline
        cancel_at = None if deadline is None else deadline.at - self.reserve
        if limit is not None and (cancel_at is None or limit < cancel_at):
            return limit, limit
        return None if cancel_at is None else (cancel_at, cancel_at + self.reserve / 2)
