"""How the environments of a simulated fleet connect: lambdadb's own code, and what others do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from lambdadb.connect.hedging import HedgedConnect
from lambdadb.connect.history import ConnectHistory
from lambdadb.deadline import Clock, Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.lab.fleet.server import SimulatedAttempt, SimulatedTarget
from lambdadb.retry import ResumeRetry

Client = Callable[[SimulatedTarget, Clock, Deadline, Random], SimulatedAttempt]
"""Opens a session before a deadline, or raises `AttemptFailed`."""

CONNECT_TIMEOUT = 10.0
"""Seconds after which the other clients give up an attempt: the `connect_timeout` that people set."""


def lambdadb_client(retry: ResumeRetry) -> Client:
    """Make the client that runs lambdadb's own hedged connect, with these settings."""

    def connect(
        target: SimulatedTarget, clock: Clock, end: Deadline, random: Random
    ) -> SimulatedAttempt:
        place: Any = target
        hedged = HedgedConnect(
            target=place,
            retry=retry,
            deadline=retry.connect_deadline(clock, end),
            clock=clock,
            random=random,
            history=ConnectHistory(clock, place),
        )
        try:
            attempt: Any = hedged.run()
        finally:
            hedged.close()
        made: SimulatedAttempt = attempt
        return made

    return connect


def loop_client(pauses: Callable[[Random], Iterator[float]], longest: float = float("inf")) -> Client:
    """Make a client that tries one attempt after the other, with these pauses between them."""

    def connect(
        target: SimulatedTarget, clock: Clock, end: Deadline, random: Random
    ) -> SimulatedAttempt:
        last = Deadline(clock.now() + longest).earlier(Deadline(end.at - 1.0))
        for pause in pauses(random):
            attempt = target.begin_attempt(0)
            try:
                limit = Deadline(clock.now() + CONNECT_TIMEOUT).earlier(last)
                while left := limit.remaining(clock):
                    clock.wait({attempt.socket: attempt.event}, left)
                    if attempt.advance():
                        return attempt
                failure = attempt.describe_silence()
            except AttemptFailed as error:
                failure = error
            attempt.close()
            if pause >= last.remaining(clock):
                raise failure
            clock.sleep(pause)
        raise AssertionError("pauses never end")

    return connect


def every(seconds: float) -> Callable[[Random], Iterator[float]]:
    """Pause for the same time always."""
    return lambda _: itertools.repeat(seconds)


def full_jitter(random: Random) -> Iterator[float]:
    """Pause as the AWS Architecture Blog describes it: at random up to 100 ms, doubled up to 20 s."""
    return (random.uniform(0.0, min(20.0, 0.1 * 2.0**number)) for number in itertools.count())


def decorrelated_jitter(random: Random) -> Iterator[float]:
    """Pause at random up to three times the last pause, from 100 ms to 20 s (the same source)."""
    pause = 0.1
    while True:
        pause = min(20.0, random.uniform(0.1, pause * 3.0))
        yield pause


def never(random: Random) -> Iterator[float]:
    """Do not try again: SQLAlchemy by itself."""
    del random
    return itertools.repeat(float("inf"))


LOOPS: dict[str, tuple[Callable[[Random], Iterator[float]], float]] = {
    "no retry": (never, float("inf")),
    "every 3 s": (every(3.0), float("inf")),
    "full jitter": (full_jitter, float("inf")),
    "decorrelated jitter": (decorrelated_jitter, float("inf")),
    "AWS wrapper": (every(1.0), 30.0),  # its open_connection_retry_interval_ms and _timeout_ms
    "tenacity": (every(0.01), float("inf")),  # @retry without arguments; 10 ms for an attempt itself
}
"""What others do: the pauses between attempts, and the seconds after which they give up."""

CLIENTS: dict[str, Client] = {
    "lambdadb": lambdadb_client(ResumeRetry()),
    **{name: loop_client(*loop) for name, loop in LOOPS.items()},
}
