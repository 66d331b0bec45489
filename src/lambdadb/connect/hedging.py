"""
A hedged connect: parallel attempts to log in, until one succeeds or none can succeed.

A resuming Aurora is documented to hold a connection and to answer late. It has also been seen to refuse
connections, to close them, and to lose them without an answer. So an attempt that gets no answer is
kept, because the answer may come. Another attempt is started beside it, because the answer may never
come. At most two are open. The older one is kept until it is answered. The younger one is closed and
started again when it got no answer for `hedge_after` seconds, or for 5 seconds where the server counts
attempts that are given up, as MySQL does.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from random import Random

from lambdadb.connect.history import ConnectHistory
from lambdadb.deadline import Clock, Deadline
from lambdadb.drivers.base import Attempt, AttemptFailed, Target
from lambdadb.faults import Fault, one_line
from lambdadb.retry import ResumeRetry

logger = logging.getLogger("lambdadb")

# Seconds for which the younger attempt is kept after a byte of the server in the middle of a login. A
# small instance that has just woken up is slow.
KEEP_AFTER_ANSWER = 5.0


@dataclass(kw_only=True, repr=False, eq=False)
class HedgedConnect:
    """The attempts of one connect with one login."""

    target: Target
    retry: ResumeRetry
    deadline: Deadline
    clock: Clock
    random: Random
    history: ConnectHistory
    refusal_is_final: bool = False
    """Whether a refused connection ends the connect, and is no sign of a database that wakes up."""
    _open: dict[Attempt, float] = field(default_factory=dict)  # each with its start, the older first
    _winner: Attempt | None = None
    _renew_at: float = 0.0
    _number: int = 0
    _exhausted_since: float | None = None
    """When the server first said that all of its connections are in use."""

    def run(self) -> Attempt:
        """Return the first attempt that logs in. Raises `AttemptFailed` if none can in time."""
        try:
            return self._try_once()
        except AttemptFailed as failure:
            if not self._can_wait(failure):
                raise
            logger.warning(
                "%s is not ready (%s: %s); waiting for it up to %.1f s",
                self.target,
                failure.fault.value,
                one_line(failure.text),
                self.deadline.remaining(self.clock),
            )
            return self._keep_trying(failure)

    def close(self) -> None:
        """Close every attempt except the one that logged in."""
        for attempt in list(self._open):
            if attempt is not self._winner:
                self._end(attempt, None)

    def _can_wait(self, failure: AttemptFailed) -> bool:
        if failure.fault is Fault.EXHAUSTED and self._exhausted_left() <= 0:
            return False
        return failure.fault.can_pass and not (failure.refused and self.refusal_is_final)

    def _exhausted_left(self) -> float:
        """Seconds for which the connect may still wait for a free connection."""
        if self.retry.exhausted_timeout is None or self._exhausted_since is None:
            return math.inf
        return self._exhausted_since + self.retry.exhausted_timeout - self.clock.now()

    def _keep_trying(self, first: AttemptFailed) -> Attempt:
        failures = iter([first])

        def attempt() -> Attempt:
            for failure in failures:
                raise failure  # the loop has to pause after the first attempt too
            return self._try_once()

        return self.retry.retrying(self._can_wait, self.deadline, self.clock, self.random, self._pause)(
            attempt
        )

    def _try_once(self) -> Attempt:
        """Start one more attempt. Return the one that logs in, or raise why none did so far."""
        if self._winner is None:
            if len(self._open) == 2 and self.clock.now() >= self._renew_at:
                self._end(self._younger, self._younger.describe_silence().fault)
            if len(self._open) < 2:
                self._start()
            self._drive(self._patience)
            if self._winner is None and self._younger.end_is_counted:
                self._drive(self._renew_at - self.clock.now())
        if self._winner is None:
            silence = self._younger.describe_silence()
            self.history.add_failure(silence.fault)
            raise silence
        return self._winner

    def _start(self) -> None:
        began = self.clock.now()
        attempt = self.target.begin_attempt(self._number)
        self._number += 1
        self.history.attempts += 1
        self._open[attempt] = began
        self._renew_at = began + self._patience
        self._advance(attempt)

    @property
    def _patience(self) -> float:
        return self.retry.patience(exhausted=Fault.EXHAUSTED in self.history.faults)

    @property
    def _younger(self) -> Attempt:
        return next(reversed(self._open))

    def _end(self, attempt: Attempt, fault: Fault | None) -> None:
        self.history.add("attempt", self._open.pop(attempt), fault)
        attempt.close()

    def _pause(self, seconds: float) -> None:
        """Pause between attempts, while an attempt that is still open may log in."""
        end = self.clock.now() + min(seconds, max(self._exhausted_left(), 0.0))
        while self._winner is None and (left := end - self.clock.now()) > 0:
            try:
                self._drive(left)
            except AttemptFailed as failure:
                if not self._can_wait(failure):
                    raise

    def _drive(self, seconds: float) -> None:
        """Advance the open attempts until one logs in, one fails (raises), or `seconds` are over."""
        end = self.clock.now() + min(seconds, self.deadline.remaining(self.clock))
        while self._winner is None:
            left = end - self.clock.now()
            sockets = {attempt.socket: attempt.event for attempt in self._open}
            ready = set(self.clock.wait(sockets, left))
            if not ready and left <= 0:
                return
            for attempt in [a for a in self._open if a.socket in ready]:
                self._advance(attempt)

    def _advance(self, attempt: Attempt) -> None:
        try:
            if attempt.advance() and self._winner is None:
                self._winner = attempt
                self.history.add("attempt", self._open.pop(attempt))
            elif attempt.got_first_byte and attempt is self._younger:
                self._renew_at = self.clock.now() + KEEP_AFTER_ANSWER
            elif attempt.end_is_counted and attempt is self._younger:
                self._renew_at = self._open[attempt] + self.retry.patience(counted=True)
        except AttemptFailed as failure:
            self.retry.diagnose(failure)
            self.history.add_failure(failure.fault)
            if failure.fault is Fault.EXHAUSTED and self._exhausted_since is None:
                self._exhausted_since = self.clock.now()
            self._end(attempt, failure.fault)
            if self._winner is None:
                raise
