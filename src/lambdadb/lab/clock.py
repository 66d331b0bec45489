"""The lab's time, which can pass faster than the real one while nothing real is being measured."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from lambdadb.lab import LabError


class LabClock:
    """
    Time of the lab: real time, or the same time passing `speed` times as fast.

    The speed may change while the clock runs: let the minutes between two invocations pass
    quickly and connects and statements in real time, and a figure in seconds means the same
    at any speed.

    Args:
        speed: Lab seconds per real second, above 0.
        monotonic: The source of real time, for tests.

    Raises:
        LabError: The speed is not a finite number above 0.
    """

    def __init__(self, speed: float = 1.0, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._speed = checked(speed)
        self._lab = 0.0
        self._real = monotonic()

    def now(self) -> float:
        """Seconds of lab time since this clock was made; never goes back."""
        with self._lock:
            return self._lab + (self._monotonic() - self._real) * self._speed

    @property
    def speed(self) -> float:
        """Lab seconds per real second; set it at any time, `now()` goes on from where it is."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        checked(speed)
        with self._lock:
            real = self._monotonic()
            self._lab += (real - self._real) * self._speed
            self._real = real
            self._speed = speed

    def advance(self, seconds: float) -> None:
        """Let so many lab seconds pass at once; 0 or more."""
        with self._lock:
            self._lab += max(seconds, 0.0)


def checked(speed: float) -> float:
    """Give the speed back, or say what is wrong with it."""
    if not math.isfinite(speed) or speed <= 0:
        raise LabError(
            f"The clock's speed is {speed}: time would stand still or run back. "
            "Give a number above 0; 1 is real time."
        )
    return speed
