"""
The only place that opens a connection: gathers login, tag and time left, tries until the database
answers, and says what was wrong when it did not.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from selectors import EVENT_READ
from typing import Any

from lambdadb.background import Call
from lambdadb.connect.hedging import HedgedConnect
from lambdadb.connect.history import ConnectHistory
from lambdadb.credentials import Login, LoginIterator, LoginUnavailable
from lambdadb.deadline import ActiveInvocations, Clock, Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg import tls
from lambdadb.drivers.psycopg.connection import StatementDeadline
from lambdadb.drivers.psycopg.driver import Attempt, Driver
from lambdadb.errors import ConnectFailed, DatabaseResuming, LambdaDBError, OutOfTime
from lambdadb.faults import Fault, one_line, remedy_of
from lambdadb.session_tag import session_tag
from lambdadb.settings import Settings
from lambdadb.tracing import tell

logger = logging.getLogger("lambdadb")

AHEAD = 1.0  # seconds for which a connect waits for the login that was begun ahead of it

# Seconds for a second look at a certificate that was refused, to say what is wrong with it.
SECOND_LOOK = 2.0


LoggedIn = tuple[Attempt, dict[str, Any]]
"""A successful attempt to log in, and its parameters."""


@dataclass(kw_only=True, repr=False, eq=False)
class Connector:
    """Opens the connections of one engine."""

    driver: Driver
    settings: Settings
    clock: Clock
    scope: ActiveInvocations
    random: Random = field(default_factory=Random)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    warned: set[str] = field(default_factory=set)
    """What the operator was told once and need not be told at each connect."""
    ahead: list[Ahead] = field(default_factory=list)
    """The login that was begun before anybody asked for it, until somebody does."""

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
        history = ConnectHistory(self.clock)
        try:
            session = self._taken(parameters, deadline, history)
            attempt, parameters = session or self.logged_in(parameters, deadline, history)
        except AttemptFailed as last:
            error = self._gave_up(history, last)
            self._tell(history, parameters, error)
            raise error from last.__cause__ or error.orig
        self._tell(history, parameters)
        bounds = StatementDeadline(self.scope, self.clock, self.settings.retry.reserve)
        return self.driver.adopt(attempt, parameters, bounds, deadline.at)

    def connect_ahead(self, conninfo: str = "", **parameters: Any) -> None:
        """
        Begin to log in, in a thread; the next `connect` with the same arguments takes the session.

        Nothing of the engine runs in that thread: a session is asked its questions, and its listeners
        are told of it, by whoever takes it.
        """
        try:
            self.ahead.append(Ahead(self, self.driver.parameters(conninfo, parameters)))
        except RuntimeError as error:  # no thread can be started
            logger.info("Connecting ahead: %s", error)

    def _taken(
        self, parameters: Mapping[str, Any], deadline: Deadline, history: ConnectHistory
    ) -> LoggedIn | None:
        try:
            ahead, began = self.ahead.pop(), self.clock.now()
        except IndexError:
            return None
        try:
            # Half of the time at most: the rest is for a login of its own.
            seconds = min(AHEAD, deadline.remaining(self.clock) / 2)
            session = ahead.session(parameters, self.clock, seconds)
        finally:
            ahead.close()
        history.add("ahead", began)
        if session is not None:
            history.target, history.attempts = ahead.history.target, ahead.history.attempts
            history.faults = ahead.history.faults
        return session

    def logged_in(self, wanted: dict[str, Any], deadline: Deadline, history: ConnectHistory) -> LoggedIn:
        """The successful attempt, and its parameters, with the first login that is not refused."""
        found = self._accepted(wanted, deadline, history)
        if history.faults:
            logger.info(
                "%s answered after %.1f s, %d attempts",
                history.target,
                history.seconds,
                history.attempts,
            )
        return found

    def _accepted(self, wanted: dict[str, Any], deadline: Deadline, history: ConnectHistory) -> LoggedIn:
        refused: list[dict[str, Any]] = []
        last = AttemptFailed(Fault.LOGIN, "the credentials gave none")
        for login in self._logins(wanted, deadline, history):
            parameters = {**wanted, **login}
            if parameters in refused:
                continue
            history.target = self.driver.target(parameters)
            try:
                return self._open(parameters, deadline, history)
            except AttemptFailed as failure:
                if failure.fault is not Fault.CREDENTIALS:
                    raise
                last = failure
            refused.append(parameters)
            logger.info("%s: %s", history.target, one_line(last.text))
        raise last

    def _logins(
        self, parameters: Mapping[str, Any], deadline: Deadline, history: ConnectHistory
    ) -> Iterator[Login]:
        store = self.settings.credentials
        if store is None:
            yield {}
            return
        history.target = self.driver.target(parameters)
        self._check_verified(parameters)
        neutral = self.driver.to_neutral_parameters(parameters, self.environment)
        asked = LoginIterator(store, neutral)
        while (login := self._next(asked, deadline, history)) is not None:
            yield self.driver.to_driver_parameters(login)

    def _check_verified(self, parameters: Mapping[str, Any]) -> None:
        """Refuse a server that must not get the login of a store, before and after there is one."""
        if self.settings.credentials is not None:
            tls.check_verified(
                parameters,
                self.environment,
                always=self.settings.requires_verified_server,
                allow_unverified=self.settings.allow_unverified_server,
            )

    def _next(self, asked: LoginIterator, deadline: Deadline, history: ConnectHistory) -> Login | None:
        asynchronous = asked.asynchronous
        wait: Any = self.clock.awaited if asynchronous else self.clock.result
        began = self.clock.now()
        try:
            login: Login | None = wait(asked.next_login, deadline.remaining(self.clock))
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
            history.add("login", began)
        return self._next(asked, deadline, history)

    def tag(self) -> str | None:
        """The name of a session that is opened now."""
        return session_tag(self.settings.tag, self.environment, self.scope.alias)

    def _open(self, parameters: dict[str, Any], deadline: Deadline, history: ConnectHistory) -> LoggedIn:
        tag = self.tag()
        parameters = self.driver.startup(parameters, self.settings.policy, tag)
        self._check_verified(parameters)
        weaker = tls.get_tls_warning(parameters, self.environment)
        if weaker is not None and weaker not in self.warned:
            self.warned.add(weaker)
            logger.warning("%s: %s", history.target, weaker)
        always = self.settings.requires_verified_server
        parameters = tls.apply_tls_defaults(parameters, self.environment, always=always)
        race = HedgedConnect(
            driver=self.driver,
            parameters=parameters,
            retry=self.settings.retry,
            deadline=deadline,
            clock=self.clock,
            random=self.random,
            history=history,
        )
        try:
            return race.run(), parameters
        except AttemptFailed as failure:
            if failure.fault is not Fault.UNTRUSTED:
                raise
            seconds = min(SECOND_LOOK, deadline.remaining(self.clock))
            text = failure.text
            with contextlib.suppress(TimeoutError):
                text = self.clock.result(
                    partial(tls.explain_rejection, parameters, text, seconds), seconds
                )
            raise AttemptFailed(failure.fault, text) from None
        finally:
            race.close()

    def _tell(
        self, history: ConnectHistory, parameters: Mapping[str, Any], error: ConnectFailed | None = None
    ) -> None:
        history.end()
        tell(self.settings.tracer, lambda: history.span(self._attributes(parameters), error))
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

    def _gave_up(self, history: ConnectHistory, last: AttemptFailed) -> ConnectFailed:
        # One attempt that saw it waking is proof; the others saw only that it did not answer.
        resuming = last.fault.can_pass and Fault.RESUMING in history.faults
        fault = Fault.RESUMING if resuming else last.fault
        kind = DatabaseResuming if resuming else ConnectFailed
        return kind(
            f"No connection to {history.target} after {history.seconds:.1f} s and {history.attempts} "
            f"attempt(s), {fault.value}: {one_line(last.text)}. {remedy_of(fault, last.text)}".rstrip(),
            fault=fault,
            waited=history.seconds,
            attempts=history.attempts,
            orig=self.driver.error(last.text),
            retry_after=self.settings.retry.retry_after(history.seconds) if fault.can_pass else None,
        )


class Ahead:
    """A login that was begun before anybody asked for it, and whom it is for."""

    def __init__(self, connector: Connector, parameters: dict[str, Any]) -> None:
        # Its thread waits by itself, even where the engine waits on an event loop.
        self._connector = replace(connector, clock=Clock())
        self._parameters = parameters
        self._tag = connector.tag()
        self._process = os.getpid()
        self.history = ConnectHistory(self._connector.clock)
        self._deadline = connector.settings.retry.deadline(self._connector.clock, None)
        self._sessions: list[LoggedIn] = []  # one at most: who pops it has it
        self._closed = False
        self._call = Call(self._log_in)

    def _log_in(self) -> None:
        connector = self._connector
        try:
            session = connector.logged_in(self._parameters, self._deadline, self.history)
        except (AttemptFailed, LambdaDBError) as error:
            text = one_line(getattr(error, "text", str(error)))
            if not self._closed:
                logger.info("Connecting ahead to %s failed: %s", self.history.target, text)
            return
        self._since = connector.clock.moment()
        self._sessions.append(session)
        if self._closed:
            self._end()

    def session(self, parameters: Mapping[str, Any], clock: Clock, seconds: float) -> LoggedIn | None:
        """The session, if it is there within `seconds`, alive, and what `parameters` ask for."""
        if parameters != self._parameters or self._connector.tag() != self._tag or not self._mine:
            return None
        if not self._call.ended:
            clock.wait({self._call.socket: EVENT_READ}, seconds)
        if not self._sessions or not self._sessions[0][0].quiet():
            return None
        if clock.idle_since(self._since) >= self._connector.settings.policy.ping_after:
            return None  # the end of a session may be invisible by then
        return self._sessions.pop()

    def close(self) -> None:
        """End the session, or let it end as soon as it is there, unless it was taken."""
        self._closed = True
        self._deadline.at = 0.0  # no further attempt
        self._call.close()
        if self._mine:
            self._end()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self._call.close()  # of an engine that nobody used, nor disposed

    @property
    def _mine(self) -> bool:
        """Whether this is the process that began it: a forked child has neither thread nor session."""
        return self._process == os.getpid()

    def _end(self) -> None:
        with contextlib.suppress(IndexError):
            self._sessions.pop()[0].close()
