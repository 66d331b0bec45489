"""A simulated database: slots, logins that take processor time, and a resume from its pause."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from selectors import EVENT_READ

from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault
from lambdadb.lab.fleet.virtual_time import VirtualTime


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """
    What a simulated database can do.

    Args:
        slots: Sessions that may be open at once; 189 is Aurora's `max_connections` at 1 ACU.
        login: Seconds of its processor for a login. The default was measured with PostgreSQL 15, TLS and
            SCRAM on one machine.
        refusal: Seconds of its processor for a login that is refused because all slots are in use.
        processors: How many logins it handles at once.
        round_trip: Seconds of the network for a login's round trips.
        resume: Seconds from the first attempt until it is awake; None if it is awake at the start.
        shape: What an attempt meets until then: `hold` answers its question for TLS and then keeps it,
            as the emulated cluster does; `refuse` refuses it.
    """

    slots: int = 189
    login: float = 0.0088
    refusal: float = 0.004
    processors: int = 2
    round_trip: float = 0.002
    resume: float | None = None
    shape: str = "hold"


class Server:
    """The database of a simulated fleet."""

    def __init__(self, time: VirtualTime, settings: ServerSettings) -> None:
        self.time = time
        self.settings = settings
        self.sockets = itertools.count(1)
        self.sessions = 0
        self.peak_sessions = 0
        self.attempts = 0
        self.wasted = 0
        """Attempts that ended without a session that was used."""
        self.per_second: Counter[int] = Counter()
        self.awake = settings.resume is None
        self.awake_since = 0.0
        self.busy_until = [0.0] * settings.processors
        self.held: list[SimulatedAttempt] = []
        self.woken = False

    def arrive(self, attempt: SimulatedAttempt) -> None:
        """Take an attempt to log in."""
        self.attempts += 1
        self.per_second[int(self.time.now)] += 1
        if self.awake:
            self._queue(attempt)
            return
        if not self.woken:
            self.woken = True
            self.time.at(self.time.now + (self.settings.resume or 0.0), self._wake)
        if self.settings.shape == "hold":
            self.held.append(attempt)
            self.time.at(self.time.now + self.settings.round_trip, attempt.greet)
        else:
            failure = AttemptFailed(Fault.RESUMING, "the database system is starting up")
            self.time.at(self.time.now + self.settings.round_trip, attempt.answer, failure)

    def leave(self) -> None:
        """End a session."""
        self.sessions -= 1

    def _wake(self) -> None:
        self.awake, self.awake_since = True, self.time.now
        held, self.held = self.held, []
        for attempt in held:
            self._queue(attempt)

    def _queue(self, attempt: SimulatedAttempt) -> None:
        """Give the attempt a slot, which PostgreSQL does before the login, or refuse it."""
        if attempt.closed:
            return
        full = self.sessions >= self.settings.slots
        if not full:
            self.sessions += 1
            self.peak_sessions = max(self.peak_sessions, self.sessions)
        number = min(range(len(self.busy_until)), key=self.busy_until.__getitem__)
        cost = self.settings.refusal if full else self.settings.login
        done = max(self.busy_until[number], self.time.now) + cost
        self.busy_until[number] = done
        self.time.at(done, self._finish, attempt, full)

    def _finish(self, attempt: SimulatedAttempt, full: bool) -> None:
        """Answer when a processor has worked on the login. Who has gone meanwhile frees the slot."""
        failure = AttemptFailed(Fault.EXHAUSTED, "sorry, too many clients already") if full else None
        if attempt.closed and not full:
            self.leave()
        attempt.has_session = not (full or attempt.closed)
        self.time.at(self.time.now + self.settings.round_trip, attempt.answer, failure)


class SimulatedAttempt:
    """An attempt to log in, as `lambdadb.drivers.base.Attempt` describes it."""

    end_is_counted = False
    __slots__ = (
        "answered",
        "closed",
        "event",
        "failure",
        "got_first_byte",
        "has_session",
        "server",
        "socket",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket = next(server.sockets)
        self.event = EVENT_READ
        self.got_first_byte = False
        self.answered = False
        self.has_session = False
        self.closed = False
        self.failure: AttemptFailed | None = None
        server.arrive(self)

    def greet(self) -> None:
        """Receive the answer to the question for TLS, which comes before the login."""
        if not self.closed:
            self.got_first_byte = True
            self.server.time.make_ready(self.socket)

    def answer(self, failure: AttemptFailed | None) -> None:
        """Receive the server's answer to the login."""
        if self.closed:
            return
        self.failure = failure
        self.got_first_byte = self.answered = True
        self.server.time.make_ready(self.socket)

    def advance(self) -> bool:
        """Do what can be done; True once logged in."""
        if not self.answered:
            return False
        if self.failure is not None:
            raise self.failure
        return True

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""
        return AttemptFailed(Fault.UNREACHABLE, "no answer", silent=True)

    def close(self) -> None:
        """End the attempt, and its session if it has one."""
        if self.closed:
            return
        self.closed = True
        self.server.wasted += 1
        self.server.time.forget(self.socket)
        if self.has_session:
            self.server.leave()


class SimulatedTarget:
    """Where the fleet connects to: what a hedged connect needs of `lambdadb.drivers.base.Target`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin_attempt(self, number: int) -> SimulatedAttempt:
        """Start an attempt."""
        del number
        return SimulatedAttempt(self._server)
