"""
The only place that opens a connection: gathers login, tag and time left, tries until the database
answers, and says what was wrong when it did not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from lambdadb.bounds import Bounds
from lambdadb.deadline import Clock, Deadline, Scope
from lambdadb.errors import ConnectFailed, DatabaseResuming, OutOfTime
from lambdadb.faults import Fault, one_line
from lambdadb.psycopg import Attempt, Driver
from lambdadb.retry import AttemptFailed
from lambdadb.settings import Settings
from lambdadb.tag import session_tag
from lambdadb.tracing import Connect

logger = logging.getLogger("lambdadb")

# Seconds for which an attempt is kept after the server's last word in the middle of a login, which a
# small instance that has just woken up may take its time for.
HEARD = 5.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Connector:
    """Opens the connections of one engine."""

    driver: Driver
    settings: Settings
    clock: Clock
    scope: Scope
    random: Random = field(default_factory=Random)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def connect(self, conninfo: str = "", **parameters: Any) -> Any:
        """
        Open a session, waiting for a database that is waking up.

        Takes the place of the driver's `connect()`, whose arguments it takes.

        Raises:
            ConnectFailed: It cannot be opened; `DatabaseResuming` if it may be a little later.
            OutOfTime: The invocation's time was over before the first attempt.

        **Costs:** one TCP handshake and the login: 1 round trip with trust, 3 with SCRAM; over TLS 2
        more (3 where the server asks for another key share).
        """
        started = self.clock.now()
        deadline = self.settings.retry.deadline(self.clock, self.scope.deadline)
        if not deadline.remaining(self.clock):
            raise self._out_of_time()
        parameters = self.driver.parameters(conninfo, parameters)
        if self.settings.credentials is not None:
            parameters = {**parameters, **self.settings.credentials.login(parameters)}
        tag = session_tag(self.settings.tag, self.environment, self.scope.alias)
        parameters = self.driver.startup(parameters, self.settings.policy, tag)
        target = self.driver.target(parameters)
        race = Race(self, parameters, target, deadline)
        try:
            attempt = race.run()
        except AttemptFailed as last:
            seen = Connect(target, self.clock.now() - started, race.attempts, tuple(race.faults))
            error = self._gave_up(seen, last)
            self._tell("gave_up", seen, error)
            raise error from error.orig
        finally:
            race.close()
        seen = Connect(target, self.clock.now() - started, race.attempts, tuple(race.faults))
        if seen.faults:
            logger.info("%s answered after %.1f s, %d attempts", target, seen.seconds, seen.attempts)
        self._tell("connected", seen)
        bounds = Bounds(self.scope, self.clock, self.settings.retry.reserve)
        return self.driver.adopt(attempt, parameters, bounds, deadline.at)

    def _tell(self, event: Literal["connected", "gave_up"], *what: Any) -> None:
        try:
            if self.settings.tracer is not None:
                getattr(self.settings.tracer, event)(*what)
        except Exception:
            logger.exception("The tracer %r failed; the connect goes on", self.settings.tracer)

    def _out_of_time(self) -> OutOfTime:
        left = self.scope.deadline.remaining(self.clock) if self.scope.deadline else 0.0
        return OutOfTime(
            f"{left:.1f} s of the invocation are left, {self.settings.retry.reserve:.1f} s of them "
            "reserved for the handler's answer: no connection was tried. Raise the function's timeout, "
            "connect earlier in the handler, or lower ResumeRetry(reserve=...).",
            sent=False,
        )

    def _gave_up(self, seen: Connect, last: AttemptFailed) -> ConnectFailed:
        # One attempt that saw it waking is proof; the others saw only that it did not answer.
        resuming = last.fault.can_pass and Fault.RESUMING in seen.faults
        fault = Fault.RESUMING if resuming else last.fault
        kind = DatabaseResuming if resuming else ConnectFailed
        return kind(
            f"No connection to {seen.target} after {seen.seconds:.1f} s and {seen.attempts} attempt(s), "
            f"{fault.value}: {one_line(last.text)}. {fault.remedy}",
            fault=fault,
            waited=seen.seconds,
            attempts=seen.attempts,
            orig=self.driver.error(last.text),
            retry_after=self.settings.retry.retry_after(seen.seconds) if fault.can_pass else None,
        )


class Race:
    """
    Attempts to log in, two of them side by side at most; the first to succeed wins.

    The older one is kept as long as it is unanswered, since it may be held by a database that is
    waking up. The younger one is renewed when nothing is heard from it, since the older one may be lost.
    """

    def __init__(
        self, connector: Connector, parameters: Mapping[str, Any], target: str, deadline: Deadline
    ) -> None:
        self._connector = connector
        self._clock = connector.clock
        self._parameters = parameters
        self._target = target
        self._deadline = deadline
        self._open: list[Attempt] = []
        self._winner: Attempt | None = None
        self._renew_at = 0.0
        self.attempts = 0
        self.faults: list[Fault] = []

    def run(self) -> Attempt:
        """The winner; raises `AttemptFailed` when none can be expected before the deadline."""
        try:
            return self._attempt()
        except AttemptFailed as failure:
            if not failure.fault.can_pass:
                raise
            logger.warning(
                "%s is not ready (%s: %s); waiting for it up to %.1f s",
                self._target,
                failure.fault.value,
                one_line(failure.text),
                self._deadline.remaining(self._clock),
            )
            return self._again(failure)

    def close(self) -> None:
        """End every attempt but the winner."""
        for attempt in self._open:
            if attempt is not self._winner:
                attempt.close()
        self._open.clear()

    def _again(self, first: AttemptFailed) -> Attempt:
        retry, random = self._connector.settings.retry, self._connector.random
        failures = iter([first])

        def attempt() -> Attempt:
            for failure in failures:
                raise failure  # the loop has to pause after the first attempt too
            return self._attempt()

        return retry.retrying(self._deadline, self._clock, random, self._rest)(attempt)

    def _attempt(self) -> Attempt:
        """Start one more attempt; return the winner, raise what ended an attempt, or its silence."""
        if self._winner is None:
            if len(self._open) == 2 and self._clock.now() >= self._renew_at:
                self._open.pop().close()
            if len(self._open) < 2:
                self._start()
            self._listen(self._connector.settings.retry.silence)
        if self._winner is None:
            silence = self._open[-1].silence()
            self.faults.append(silence.fault)
            raise silence
        return self._winner

    def _start(self) -> None:
        attempt = self._connector.driver.attempt(self._parameters, self.attempts)
        self.attempts += 1
        self._open.append(attempt)
        self._renew_at = self._clock.now() + self._connector.settings.retry.silence
        self._advance(attempt)

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
            if attempt.heard and attempt is self._open[-1]:
                self._renew_at = self._clock.now() + HEARD
        except AttemptFailed as failure:
            self.faults.append(failure.fault)
            self._open.remove(attempt)
            attempt.close()
            if self._winner is None:
                raise
