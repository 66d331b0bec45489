"""
The only place that opens a connection: gathers login, tag and time left, tries until the database
answers, and says what was wrong when it did not.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from lambdadb import tls
from lambdadb.bounds import Bounds
from lambdadb.course import Course
from lambdadb.credentials import Asked, Login, LoginUnavailable
from lambdadb.deadline import Clock, Deadline, Scope
from lambdadb.errors import ConnectFailed, DatabaseResuming, LambdaDBError, OutOfTime
from lambdadb.faults import Fault, one_line, remedy_of
from lambdadb.psycopg import Attempt, Driver
from lambdadb.retry import AttemptFailed
from lambdadb.settings import Settings
from lambdadb.tag import session_tag
from lambdadb.tracing import tell

logger = logging.getLogger("lambdadb")

# Seconds for which an attempt is kept after the server's last word in the middle of a login, which a
# small instance that has just woken up may take its time for.
HEARD = 5.0

# Seconds for a second look at a certificate that was refused, to say what is wrong with it.
SECOND_LOOK = 2.0


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Connector:
    """Opens the connections of one engine."""

    driver: Driver
    settings: Settings
    clock: Clock
    scope: Scope
    random: Random = field(default_factory=Random)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    warned: set[str] = field(default_factory=set)
    """What the operator was told once and need not be told at each connect."""

    def connect(self, conninfo: str = "", **parameters: Any) -> Any:
        """
        Open a session, waiting for a database that is waking up.

        Takes the place of the driver's `connect()`, whose arguments it takes.

        Raises:
            ConnectFailed: It cannot be opened; `DatabaseResuming` if it may be a little later.
            OutOfTime: The invocation's time was over before the first attempt.

        **Costs:** one TCP handshake and the login: 1 round trip with trust, 2 with a password or token,
        3 with SCRAM; over TLS 2 more (3 where the server asks for another key share). As much again for
        each refused login. All of it: docs/reference/round-trips.md.
        """
        deadline = self.settings.retry.deadline(self.clock, self.scope.deadline)
        if not deadline.remaining(self.clock):
            raise self._out_of_time()
        parameters = self.driver.parameters(conninfo, parameters)
        course = Course(self.clock)
        try:
            attempt, parameters = self._logged_in(parameters, deadline, course)
        except AttemptFailed as last:
            error = self._gave_up(course, last)
            self._tell(course, parameters, error)
            raise error from last.__cause__ or error.orig
        if course.faults:
            logger.info(
                "%s answered after %.1f s, %d attempts", course.target, course.seconds, course.attempts
            )
        self._tell(course, parameters)
        bounds = Bounds(self.scope, self.clock, self.settings.retry.reserve)
        return self.driver.adopt(attempt, parameters, bounds, deadline.at)

    def _logged_in(
        self, wanted: dict[str, Any], deadline: Deadline, course: Course
    ) -> tuple[Attempt, dict[str, Any]]:
        """The successful attempt, and its parameters, with the first login that is not refused."""
        refused: list[dict[str, Any]] = []
        last = AttemptFailed(Fault.LOGIN, "the credentials gave none")
        for login in self._logins(wanted, deadline, course):
            parameters = {**wanted, **login}
            if parameters in refused:
                continue
            course.target = self.driver.target(parameters)
            try:
                return self._open(parameters, deadline, course)
            except AttemptFailed as failure:
                if failure.fault is not Fault.CREDENTIALS:
                    raise
                last = failure
            refused.append(parameters)
            logger.info("%s: %s", course.target, one_line(last.text))
        raise last

    def _logins(
        self, parameters: Mapping[str, Any], deadline: Deadline, course: Course
    ) -> Iterator[Login]:
        store = self.settings.credentials
        if store is None:
            yield {}
            return
        course.target = self.driver.target(parameters)
        asked = Asked(store, parameters)
        while (login := self._next(asked, deadline, course)) is not None:
            yield login

    def _next(self, asked: Asked, deadline: Deadline, course: Course) -> Login | None:
        asynchronous = asked.asynchronous
        wait: Any = self.clock.awaited if asynchronous else self.clock.result
        began = self.clock.now()
        try:
            login: Login | None = wait(asked.following, deadline.remaining(self.clock))
            if asked.asynchronous is asynchronous:
                return login
        except LambdaDBError:
            raise
        except Exception as error:
            text = str(error)
            if not isinstance(error, LoginUnavailable):
                text = f"{asked} raised {type(error).__name__}: {error}. {Fault.LOGIN.remedy}"
            raise AttemptFailed(Fault.LOGIN, text) from error
        finally:
            course.add("login", began)
        return self._next(asked, deadline, course)

    def _open(
        self, parameters: dict[str, Any], deadline: Deadline, course: Course
    ) -> tuple[Attempt, dict[str, Any]]:
        tag = session_tag(self.settings.tag, self.environment, self.scope.alias)
        parameters = self.driver.startup(parameters, self.settings.policy, tag)
        weaker = tls.weaker(parameters, self.environment)
        if weaker is not None and weaker not in self.warned:
            self.warned.add(weaker)
            logger.warning("%s: %s", course.target, weaker)
        parameters = tls.verified(parameters, self.environment)
        race = Race(self, parameters, deadline, course)
        try:
            return race.run(), parameters
        except AttemptFailed as failure:
            if failure.fault is not Fault.UNTRUSTED:
                raise
            seconds = min(SECOND_LOOK, deadline.remaining(self.clock))
            text = failure.text
            with contextlib.suppress(TimeoutError):
                text = self.clock.result(partial(tls.explained, parameters, text, seconds), seconds)
            raise AttemptFailed(failure.fault, text) from None
        finally:
            race.close()

    def _tell(
        self, course: Course, parameters: Mapping[str, Any], error: ConnectFailed | None = None
    ) -> None:
        course.end()
        tell(self.settings.tracer, lambda: course.span(self._attributes(parameters), error))
        self.scope.idle = None

    def _attributes(self, parameters: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
        """What is known of a connect, by OpenTelemetry's names where it has one."""
        known: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.namespace": parameters.get("dbname"),
            "server.address": parameters.get("host") or parameters.get("hostaddr"),
            "server.port": int(str(parameters.get("port") or 5432).split(",")[0]),
            "faas.name": self.environment.get("AWS_LAMBDA_FUNCTION_NAME"),
            "faas.coldstart": self.scope.cold,
            "lambdadb.user": parameters.get("user"),
            "lambdadb.policy": type(self.settings.policy).__name__,
            "lambdadb.idle": self.scope.idle,
        }
        return {name: value for name, value in known.items() if value is not None}

    def _out_of_time(self) -> OutOfTime:
        left = self.scope.deadline.remaining(self.clock) if self.scope.deadline else 0.0
        return OutOfTime(
            f"{left:.1f} s of the invocation are left, {self.settings.retry.reserve:.1f} s of them "
            "reserved for the handler's answer: no connection was tried. Raise the function's timeout, "
            "connect earlier in the handler, or lower ResumeRetry(reserve=...).",
            sent=False,
        )

    def _gave_up(self, course: Course, last: AttemptFailed) -> ConnectFailed:
        # One attempt that saw it waking is proof; the others saw only that it did not answer.
        resuming = last.fault.can_pass and Fault.RESUMING in course.faults
        fault = Fault.RESUMING if resuming else last.fault
        kind = DatabaseResuming if resuming else ConnectFailed
        return kind(
            f"No connection to {course.target} after {course.seconds:.1f} s and {course.attempts} "
            f"attempt(s), {fault.value}: {one_line(last.text)}. {remedy_of(fault, last.text)}".rstrip(),
            fault=fault,
            waited=course.seconds,
            attempts=course.attempts,
            orig=self.driver.error(last.text),
            retry_after=self.settings.retry.retry_after(course.seconds) if fault.can_pass else None,
        )


class Race:
    """
    Attempts to log in, two of them side by side at most; the first to succeed wins.

    The older one is kept as long as it is unanswered, since it may be held by a database that is
    waking up. The younger one is renewed when nothing is heard from it, since the older one may be lost.
    """

    def __init__(
        self, connector: Connector, parameters: Mapping[str, Any], deadline: Deadline, course: Course
    ) -> None:
        self._connector = connector
        self._clock = connector.clock
        self._parameters = parameters
        self._deadline = deadline
        self._course = course
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
                self._end(self._newest, self._newest.silence().fault)
            if len(self._open) < 2:
                self._start()
            self._listen(self._connector.settings.retry.silence)
        if self._winner is None:
            silence = self._newest.silence()
            self._course.failed(silence.fault)
            raise silence
        return self._winner

    def _start(self) -> None:
        began = self._clock.now()
        attempt = self._connector.driver.attempt(self._parameters, self._number)
        self._number += 1
        self._course.attempts += 1
        self._open[attempt] = began
        self._renew_at = began + self._connector.settings.retry.silence
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
