"""
Virtual time and a scripted server, so that a minute of waiting takes no time and is exact.
"""

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from lambdadb.connect.connector import Connector
from lambdadb.deadline import ActiveInvocations, Clock, Deadline, RunningInvocation
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.driver import PsycopgDriver
from lambdadb.drivers.psycopg.target import PsycopgTarget
from lambdadb.settings import Settings
from lambdadb.testing import SpanRecorder


class VirtualClock(Clock):
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.answers: dict[int, float] = {}

    def now(self) -> float:
        return self.time

    def moment(self) -> tuple[float, float]:
        return self.time, self.time

    def idle_since(self, moment: tuple[float, float]) -> float:
        return self.time - moment[0]

    def wait(self, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        assert seconds >= 0 or sockets, "slept a negative time"
        end = self.time + max(seconds, 0.0)
        first = min((self.answers[socket] for socket in sockets), default=math.inf)
        self.time = max(self.time, min(first, end))
        return [socket for socket in sockets if self.answers[socket] <= self.time]

    def result(self, function: Callable[[], Any], seconds: float) -> Any:
        return function()


# When an attempt that starts at a given time is answered, and how: None is a login.
Script = Callable[[float], tuple[float, AttemptFailed | None]]


class ScriptedAttempt:
    """Stands for `lambdadb.drivers.psycopg.driver.Attempt` where there is no server; same interface."""

    event = selectors.EVENT_READ
    got_first_byte = end_is_counted = False

    def __init__(self, socket: int, clock: VirtualClock, script: Script, silence: AttemptFailed) -> None:
        self.socket = socket
        self.closed = False
        self._clock = clock
        self._silence = silence
        clock.answers[socket], self._answer = script(clock.now())

    def advance(self) -> bool:
        if self._clock.now() < self._clock.answers[self.socket]:
            return False
        if self._answer is not None:
            raise self._answer
        return True

    def describe_silence(self) -> AttemptFailed:
        return self._silence

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class ScriptedTarget(PsycopgTarget):
    """A server that follows a script; everything else is the real target's."""

    scripted: Any

    def begin_attempt(self, number: int) -> Any:
        self.scripted.sent.append(self.parameters)
        return self.scripted.make_attempt()

    def to_dbapi_connection(self, attempt: Any, deadline: Any, connect_until: float) -> Any:
        return attempt


@dataclass
class ScriptedDriver(PsycopgDriver):
    """A driver whose server follows a script; everything else is the real driver's."""

    clock: VirtualClock
    script: Script
    silence: AttemptFailed
    made: list[ScriptedAttempt] = field(default_factory=list)
    sent: list[Mapping[str, Any]] = field(default_factory=list)

    def make_attempt(self) -> Any:
        attempt = ScriptedAttempt(len(self.made) + 3, self.clock, self.script, self.silence)
        self.made.append(attempt)
        return attempt


def connect(connector: Connector, **parameters: Any) -> Any:
    """Open a connection with the driver's parameters, as a dialect does."""
    return connector.connect(
        ScriptedTarget(
            parameters=parameters,
            environment=connector.environment,
            asyncio=False,
            scripted=connector.driver,
        )
    )


def invocations_until(moment: float) -> ActiveInvocations:
    """The invocations of an engine while one runs that ends at `moment`."""
    invocations = ActiveInvocations()
    invocations.kept = RunningInvocation(Deadline(moment))  # type: ignore[attr-defined]
    invocations.enter(invocations.kept)  # type: ignore[attr-defined]
    return invocations


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def recorder() -> SpanRecorder:
    return SpanRecorder("none")


@pytest.fixture
def connector_to(clock: VirtualClock, recorder: SpanRecorder) -> Callable[..., Connector]:
    """A connector to a scripted server: `connector_to(script, silence, settings..., seed=)`."""

    def make(
        script: Script,
        silence: AttemptFailed,
        *,
        invocations: ActiveInvocations | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Connector:
        return Connector(
            driver=ScriptedDriver(clock, script, silence),
            settings=Settings(tracer=recorder, **settings),
            clock=clock,
            invocations=invocations or ActiveInvocations(),
            random=Random(seed),
            environment={"AWS_LAMBDA_FUNCTION_NAME": "orders"},
        )

    return make
