"""
Attempts to log in beside each other, until one succeeds or none can be expected to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from random import Random
from typing import Any

from lambdadb.connect.history import ConnectHistory
from lambdadb.deadline import Clock, Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.driver import Attempt, Driver
from lambdadb.faults import Fault, one_line
from lambdadb.retry import ResumeRetry

logger = logging.getLogger("lambdadb")

# Seconds for which an attempt is kept after the server's last word in the middle of a login, which a
# small instance that has just woken up may take its time for.
HEARD = 5.0


class HedgedConnect:
    """
    Attempts to log in, two of them side by side at most; the first to succeed wins.

    The older one is kept as long as it is unanswered, since it may be held by a database that is
    waking up. The younger one is renewed when nothing is heard from it, since the older one may be lost.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        parameters: Mapping[str, Any],
        retry: ResumeRetry,
        deadline: Deadline,
        clock: Clock,
        random: Random,
        history: ConnectHistory,
    ) -> None:
        self._driver = driver
        self._parameters = parameters
        self._retry = retry
        self._deadline = deadline
        self._clock = clock
        self._random = random
        self._course = history
        self._open: dict[Attempt, float] = {}  # and when each began, the older one first
        self._winner: Attempt | None = None
        self._renew_at = 0.0
        self._number = 0

    def run(self) -> Attempt:
        """The winner; raises `AttemptFailed` when none can be expected before the deadline."""
        try:
            return self._attempt()
        except AttemptFailed as failure:
            if not failure.fault.can_pass:
                raise
            logger.warning(
                "%s is not ready (%s: %s); waiting for it up to %.1f s",
                self._course.target,
                failure.fault.value,
                one_line(failure.text),
                self._deadline.remaining(self._clock),
            )
            return self._again(failure)

    def close(self) -> None:
        """End every attempt but the winner."""
        for attempt in list(self._open):
            if attempt is not self._winner:
                self._end(attempt, None)

    def _again(self, first: AttemptFailed) -> Attempt:
        failures = iter([first])

        def attempt() -> Attempt:
            for failure in failures:
                raise failure  # the loop has to pause after the first attempt too
            return self._attempt()

        return self._retry.retrying(self._deadline, self._clock, self._random, self._rest)(attempt)

    def _attempt(self) -> Attempt:
        """Start one more attempt; return the winner, raise what ended an attempt, or its silence."""
        if self._winner is None:
            if len(self._open) == 2 and self._clock.now() >= self._renew_at:
                self._end(self._newest, self._newest.silence().fault)
            if len(self._open) < 2:
                self._start()
            self._listen(self._retry.hedge_after)
        if self._winner is None:
            silence = self._newest.silence()
            self._course.failed(silence.fault)
            raise silence
        return self._winner

    def _start(self) -> None:
        began = self._clock.now()
        attempt = self._driver.attempt(self._parameters, self._number)
        self._number += 1
        self._course.attempts += 1
        self._open[attempt] = began
        self._renew_at = began + self._retry.hedge_after
        self._advance(attempt)

    @property
    def _newest(self) -> Attempt:
        return next(reversed(self._open))

    def _end(self, attempt: Attempt, fault: Fault | None) -> None:
        self._course.add("attempt", self._open.pop(attempt), fault)
        attempt.close()

    def _rest(self, seconds: float) -> None:
        """Pause, with an ear to the attempt that is still open."""
        end = self._clock.now() + seconds
        while self._winner is None and (left := end - self._clock.now()) > 0:
            try:
                self._listen(left)
            except AttemptFailed as failure:
                if not failure.fault.can_pass:
                    raise

    def _listen(self, seconds: float) -> None:
        """Drive the open attempts until one wins, one fails (raises), or the time is over."""
        end = self._clock.now() + min(seconds, self._deadline.remaining(self._clock))
        while self._winner is None:
            left = end - self._clock.now()
            sockets = {attempt.socket: attempt.event for attempt in self._open}
            ready = set(self._clock.wait(sockets, left))
            if not ready and left <= 0:
                return
            for attempt in [a for a in self._open if a.socket in ready]:
                self._advance(attempt)

    def _advance(self, attempt: Attempt) -> None:
        try:
            if attempt.advance() and self._winner is None:
                self._winner = attempt
                self._course.add("attempt", self._open.pop(attempt))
            elif attempt.heard and attempt is self._newest:
                self._renew_at = self._clock.now() + HEARD
        except AttemptFailed as failure:
            self._course.failed(failure.fault)
            self._end(attempt, failure.fault)
            if self._winner is None:
                raise
