"""
A hedged connect: parallel attempts to log in, until one succeeds or none can succeed.

A resuming Aurora is documented to hold a connection and to answer late. It has also been seen to refuse
connections, to close them, and to lose them without an answer. So an attempt that gets no answer is
kept, because the answer may come. Another attempt is started beside it, because the answer may never
come. At most two are open. The older one is kept until it is answered. The younger one is closed and
started again when it got no answer. `ResumeRetry.patience` says when.
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
from lambdadb.retry import ResumeRetry, Silence

logger = logging.getLogger("lambdadb")


@dataclass(repr=False, eq=False)
class _Progress:
    """How far an open attempt came."""

    began: float
    since: float
    """When it began, or got its first byte."""
    waited: float
    """Seconds for which the connect had waited at that moment."""


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
    _open: dict[Attempt, _Progress] = field(default_factory=dict)  # the older first
    _winner: Attempt | None = None
    _number: int = 0
    _full: AttemptFailed | None = None
    """The last refusal of a server whose connections are all in use."""
    _exhausted_since: float | None = None
    """When the server first said that all of its connections are in use."""
    _took: float | None = None
    """Seconds that this took, from the attempt's start; None again after the pause."""

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

        loop = self.retry.retrying(self._can_wait, self._backoff, self.deadline, self.clock, self._pause)
        return loop(attempt)

    def _backoff(self, failure: AttemptFailed) -> float:
        """Seconds to pause after a failed attempt."""
        if failure.silent:
            return 0.0  # it has been waited for already
        if self._exhausted_since is None or failure.fault is not Fault.EXHAUSTED:
            return self.retry.backoff(failure.fault, self.history.seconds, self.random)
        if self._took is not None:
            took, self._took = self._took, None
            return self.retry.first_exhausted_backoff(took, self.random)
        # What was before the server was awake says nothing about how full it is.
        waited = self.clock.now() - self._exhausted_since
        return self.retry.backoff(failure.fault, waited, self.random)

    def _try_once(self) -> Attempt:
        """Start one more attempt if it is time. Return the one that logs in, or raise why none did."""
        if self._winner is None and (not self._open or self._is_due()):
            if len(self._open) == 2:
                self._end(self._younger, self._younger.describe_silence().fault)
            self._start()
        if self._winner is None:
            until = self._due_at
            if not self.history.faults:
                # Silence is noted before it is time for another attempt: the connect waits for a resume.
                until = min(until, self.clock.now() + self.retry.hedge_after)
            self._drive(until)
        if self._winner is None:
            silence = self._describe_silence()
            self.history.add_failure(silence.fault)
            raise silence
        return self._winner

    def _start(self) -> None:
        attempt = self.target.begin_attempt(self._number)
        self._number += 1
        self.history.attempts += 1
        now = self.clock.now()
        self._open[attempt] = _Progress(now, now, self.history.seconds)
        self._advance(attempt)

    def _is_due(self) -> bool:
        """Whether it is time for another attempt beside the younger one, or in its place."""
        return self.clock.now() >= self._due_at

    @property
    def _due_at(self) -> float:
        progress = self._open[self._younger]
        if self._exhausted_since is not None:
            silence = Silence.BUSY
        elif any(attempt.got_first_byte for attempt in self._open):
            silence = Silence.ANSWERED
        elif self._younger.describe_silence().fault is Fault.RESUMING:
            silence = Silence.COUNTED if self._younger.end_is_counted else Silence.ACCEPTED
        else:
            silence = Silence.UNREACHED
        left = self.deadline.at - progress.since
        patience = self.retry.patience(silence, progress.waited, left)
        return min(progress.since + patience, self.deadline.at)

    @property
    def _younger(self) -> Attempt:
        return next(reversed(self._open))

    def _end(self, attempt: Attempt, fault: Fault | None) -> None:
        self.history.add("attempt", self._open.pop(attempt).began, fault)
        attempt.close()

    def _pause(self, seconds: float) -> None:
        """Pause between attempts, while an attempt that is still open may log in."""
        end = self.clock.now() + min(seconds, max(self._exhausted_left(), 0.0))
        while self._winner is None and self.clock.now() < end:
            try:
                self._drive(end)
            except AttemptFailed as failure:
                if not self._can_wait(failure):
                    raise

    def _drive(self, until: float) -> None:
        """Advance the open attempts until one logs in, one fails (raises), or the time is over."""
        end = min(until, self.deadline.at)
        while self._winner is None:
            left = end - self.clock.now()
            sockets = {attempt.socket: attempt.event for attempt in self._open}
            ready = set(self.clock.wait(sockets, left))
            if not ready and left <= 0:
                return
            for attempt in [a for a in self._open if a.socket in ready]:
                if attempt in self._open:
                    self._advance(attempt)

    def _advance(self, attempt: Attempt) -> None:
        answered = attempt.got_first_byte
        try:
            if attempt.advance() and self._winner is None:
                self._winner = attempt
                self.history.add("attempt", self._open.pop(attempt).began)
            elif attempt.got_first_byte and not answered:
                progress = self._open[attempt]
                progress.since, progress.waited = self.clock.now(), self.history.seconds
                self._end_unanswered()
        except AttemptFailed as failure:
            self.retry.diagnose(failure)
            self.history.add_failure(failure.fault)
            if failure.fault is Fault.EXHAUSTED:
                self._learn_exhausted(failure, self._open[attempt].began)
            self._end(attempt, failure.fault)
            if self._winner is None:
                raise

    def _end_unanswered(self) -> None:
        """The server answers one attempt. It would have to work on the others too."""
        for attempt in [a for a in self._open if not a.got_first_byte]:
            self._end(attempt, attempt.describe_silence().fault)

    def _describe_silence(self) -> AttemptFailed:
        """Return the failure that no answer stands for. A server that was full is busy, not asleep."""
        if self._full is None:
            return self._younger.describe_silence()
        return AttemptFailed(Fault.EXHAUSTED, self._full.text, silent=True, remedy=self._full.remedy)

    def _learn_exhausted(self, full: AttemptFailed, began: float) -> None:
        """Note a refusal of a full server, of an attempt that began at this moment."""
        self._full = full
        if self._exhausted_since is None:
            self._exhausted_since = self.clock.now()
            self._took = self._exhausted_since - began
