"""
`Connector` opens the connections of an engine. No other code does.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random, SystemRandom
from typing import Any

from lambdadb.connect.hedging import HedgedConnect
from lambdadb.connect.history import ConnectHistory
from lambdadb.credentials import Login, LoginIterator, LoginUnavailable
from lambdadb.deadline import ActiveInvocations, Clock, Deadline, StatementDeadline
from lambdadb.drivers.base import Attempt, AttemptFailed, Driver, Parameters, Target
from lambdadb.errors import ConnectFailed, DatabaseResuming, InvalidSettings, LambdaDBError, OutOfTime
from lambdadb.faults import Fault, one_line
from lambdadb.session_tag import session_tag
from lambdadb.settings import Settings
from lambdadb.tracing.span import emit, start_span

logger = logging.getLogger("lambdadb")

# Seconds for a second look at a server whose certificate was refused, to say what is wrong with it.
EXPLAIN_SECONDS = 2.0


@dataclass(kw_only=True, repr=False, eq=False)
class Connector:
    """
    Opens the connections of one engine.

    The engine's dialect and pool share it. It has the settings, the clock, the driver and the running
    invocations.
    """

    driver: Driver
    settings: Settings
    clock: Clock
    invocations: ActiveInvocations = field(default_factory=ActiveInvocations)
    random: Random = field(default_factory=SystemRandom)  # no seed: copies of a process differ
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    target: Target | None = None
    """What the engine's URL and `connect_args` name. A listener to `do_connect` may choose another."""
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    """The engine's `connect_args`, for a reader engine."""
    _idle_seconds: float | None = None
    _warned: set[str] = field(default_factory=set)

    def connect(self, target: Target, *, within: float | None = None) -> Any:
        """
        Open a session. Wait for a database that is waking up.

        Args:
            within: Seconds after which to give up, if the settings and the invocation allow more.

        Raises:
            ConnectFailed: No session could be opened. `DatabaseResuming`: try again a little later.
            OutOfTime: The invocation's time was over before the first attempt.

        **Costs:** one TCP handshake and the login: 1 round trip with trust, 2 with a password or token,
        3 with SCRAM. TLS adds 2, or 3 if the server asks for another key share. Each refused login costs
        the same again. docs/reference/round-trips.md has all figures.
        """
        history = ConnectHistory(self.clock, target)
        deadline = self.settings.retry.connect_deadline(self.clock, self.invocations.deadline)
        if within is not None:
            deadline = deadline.earlier(Deadline(self.clock.now() + within))
        if not deadline.remaining(self.clock):
            raise self._describe_out_of_time()
        with start_span(self.settings.tracer, "connect", history.began) as history.handle:
            try:
                attempt, target = self._log_in(target, deadline, history)
            except AttemptFailed as last:
                error = self._describe_failure(history, last)
                self._record(history, error)
                raise error from last.__cause__ or error.orig
            except BaseException as error:  # cancelled, or interrupted by a signal
                self._record(history, error)
                raise
            self._record(history)
        statements = StatementDeadline(
            self.invocations,
            self.clock,
            self.settings.retry.reserve,
            self.settings.deadline_function,
        )
        return target.to_dbapi_connection(attempt, statements, deadline.at)

    def set_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """
        Set the engine's own target, while the engine is made.

        A server that must not get the login of a store is refused.

        Raises:
            InvalidSettings: The URL, `connect_args` or the environment choose such a server.
        """
        try:
            self.target = self.driver.make_target(arguments, parameters)
            self._check_verified(self.target)
            self.target.add_session_settings(self.settings.policy, None)
        except AttemptFailed as failure:
            raise InvalidSettings(f"{failure.text[0].upper()}{failure.text[1:]}.") from None

    def forget_logins(self) -> None:
        """Have the store drop the logins that it has read. A store of the user's own may keep them."""
        getattr(self.settings.credentials, "forget", lambda: None)()

    def replace_idle(self, seconds: float) -> None:
        """Record, for the next connect's span, how long the replaced connection was unused."""
        self._idle_seconds = seconds

    def _log_in(
        self, target: Target, deadline: Deadline, history: ConnectHistory
    ) -> tuple[Attempt, Target]:
        """Return the successful attempt, with the first login that the server does not refuse."""
        refused: list[Parameters] = []
        last = AttemptFailed(Fault.LOGIN, "the credentials gave none")
        for login in self._logins(target, deadline, history):
            history.target = target.add_login(login)
            if history.target.parameters in refused:
                continue
            try:
                return self._open(history.target, deadline, history)
            except AttemptFailed as failure:
                if failure.fault is not Fault.CREDENTIALS:
                    raise
                last = failure
            refused.append(history.target.parameters)
            logger.info("%s: %s", history.target, one_line(last.text))
        raise last

    def _open(self, bare: Target, deadline: Deadline, history: ConnectHistory) -> tuple[Attempt, Target]:
        """Return the successful attempt with one login, and the complete target."""
        self._check_verified(bare)  # a login may name another server, or another mode of TLS
        target = bare.add_session_settings(self.settings.policy, self._make_session_tag())
        self._warn_once(target, target.tls_warning)
        target = target.add_tls_defaults(always=self.settings.requires_verified_server)
        hedged = HedgedConnect(
            target=target,
            retry=self.settings.retry,
            deadline=deadline,
            clock=self.clock,
            random=self.random,
            history=history,
            # On a developer's machine a refusal means that no server listens, not that one wakes up.
            refusal_is_final=target.is_local and "AWS_LAMBDA_FUNCTION_NAME" not in self.environment,
        )
        try:
            attempt = hedged.run()
        except AttemptFailed as failure:
            if target.learn(failure):
                logger.info("%s, found by its answer: %s", target, one_line(failure.text))
                return self._open(bare, deadline, history)
            if failure.fault is not Fault.UNTRUSTED:
                raise
            raise self._explain(failure, target, deadline) from None
        finally:
            hedged.close()
        if history.faults:
            took, attempts = history.seconds, history.attempts
            logger.info("%s answered after %.1f s, %d attempts", target, took, attempts)
        return attempt, target

    def _logins(self, target: Target, deadline: Deadline, history: ConnectHistory) -> Iterator[Login]:
        """Yield logins to try. The next one is asked for when the server has refused the last."""
        store = self.settings.credentials
        if store is None:
            yield {}
            return
        self._check_verified(target)
        logins = LoginIterator(store, target.login_parameters)
        while (login := self._next_login(logins, deadline, history)) is not None:
            yield login

    def _next_login(
        self, logins: LoginIterator, deadline: Deadline, history: ConnectHistory
    ) -> Login | None:
        asynchronous = logins.asynchronous
        wait: Any = self.clock.awaited if asynchronous else self.clock.result
        began = self.clock.now()
        with start_span(self.settings.tracer, "login", history.to_epoch(began)) as handle:
            try:
                login: Login | None = wait(logins.next_login, deadline.remaining(self.clock))
                if logins.asynchronous is asynchronous:
                    return login
            except LambdaDBError:
                raise
            except LoginUnavailable as error:
                raise AttemptFailed(Fault.LOGIN, str(error), remedy="") from error
            except Exception as error:
                text = f"{logins} raised {type(error).__name__}: {error}"
                raise AttemptFailed(Fault.LOGIN, text) from error
            finally:
                history.add("login", began, handle=handle)
        return self._next_login(logins, deadline, history)

    def _check_verified(self, target: Target) -> None:
        """Refuse a server that must not get the login of a store."""
        if self.settings.credentials is not None:
            target.check_verified(
                always=self.settings.requires_verified_server,
                allow_unverified=self.settings.allow_unverified_server,
            )

    def _make_session_tag(self) -> str | None:
        """Return the tag of a session that is opened now."""
        limit = self.driver.session_tag_bytes
        return session_tag(self.settings.tag, self.environment, self.invocations.alias, limit)

    def _warn_once(self, target: Target, warning: str | None) -> None:
        if warning is not None and warning not in self._warned:
            self._warned.add(warning)
            logger.warning("%s: %s", target, warning)

    def _explain(self, failure: AttemptFailed, target: Target, deadline: Deadline) -> AttemptFailed:
        """Add to the failure of an untrusted server what was wrong and what to do."""
        seconds = min(EXPLAIN_SECONDS, deadline.remaining(self.clock))
        text = failure.text
        with contextlib.suppress(TimeoutError):
            text = self.clock.result(partial(target.explain_rejection, text, seconds), seconds)
        return AttemptFailed(failure.fault, text)

    def _record(self, history: ConnectHistory, error: BaseException | None = None) -> None:
        """Give the tracer the span of a connect that has ended."""
        history.end()
        idle, self._idle_seconds = self._idle_seconds, None
        known: dict[str, Any] = {
            **history.target.attributes,
            "faas.name": self.environment.get("AWS_LAMBDA_FUNCTION_NAME"),
            "faas.coldstart": self.invocations.cold,
            "lambdadb.policy": type(self.settings.policy).__name__,
            "lambdadb.idle": idle,
        }
        attributes = {name: value for name, value in known.items() if value is not None}
        emit(self.settings.tracer, lambda: history.make_span(attributes, error))

    def _describe_out_of_time(self) -> OutOfTime:
        invocation = self.invocations.deadline
        left = invocation.remaining(self.clock) if invocation else 0.0
        return OutOfTime(
            f"No connect was started: {left:.1f} s of the invocation are left, and "
            f"{self.settings.retry.reserve:.1f} s are reserved for the handler's answer. Raise the "
            "function's timeout, connect earlier in the handler, or lower ResumeRetry(reserve=...).",
            sent=False,
        )

    def _describe_failure(self, history: ConnectHistory, last: AttemptFailed) -> ConnectFailed:
        # One attempt that saw the database waking up is proof, if the others got no answer. A server
        # that is full has woken up.
        may_resume = last.fault.can_pass and last.fault is not Fault.EXHAUSTED
        resuming = may_resume and Fault.RESUMING in history.faults
        fault = Fault.RESUMING if resuming else last.fault
        remedy = last.remedy if fault is last.fault else fault.remedy
        kind = DatabaseResuming if resuming else ConnectFailed
        return kind(
            f"No connection to {history.target} after {history.seconds:.1f} s and {history.attempts} "
            f"attempt(s), {fault.value}: {one_line(last.text)}. {remedy}".rstrip(),
            fault=fault,
            waited=history.seconds,
            attempts=history.attempts,
            orig=self.driver.error(last.text),
            retry_after=(
                self.settings.retry.retry_after(history.seconds, fault) if fault.can_pass else None
            ),
        )
