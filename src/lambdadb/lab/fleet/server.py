"""A simulated database: slots, logins that take processor time, and a resume from its pause."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from selectors import EVENT_READ
from typing import Any

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
        greeting: Seconds of its processor for a login's first byte, the answer to the question for TLS.
        processors: How many logins it handles at once.
        round_trip: Seconds of the network for a login's round trips.
        resume: Seconds from the first attempt until it is awake; None if it is awake at the start.
        shape: What an attempt meets until then: `hold` answers its question for TLS and then keeps it,
            as the emulated cluster does; `hold-unseen` accepts it and answers nothing; `refuse`
            refuses it.
    """

    slots: int = 189
    login: float = 0.0088
    refusal: float = 0.004
    greeting: float = 0.0005
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
        self._free: list[tuple[float, float]] = []  # the longest first, and the oldest
        self._free_since: float | None = 0.0 if self.awake else None

    def longest_free(self, since: float) -> float:
        """Return the longest time since a moment for which it was awake and always had a free slot."""
        longest = 0.0 if self._free_since is None else self.time.now - max(self._free_since, since)
        first = bisect_right(self._free, since, key=itemgetter(1))
        # The second is whole, and longer than those after it.
        free = self._free[first : first + 2]
        return max([longest, *(ended - max(began, since) for began, ended in free)])

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
        if self.settings.shape != "refuse":
            self.held.append(attempt)
            if self.settings.shape == "hold":
                self.time.at(self.time.now + self.settings.round_trip, attempt.greet)
        else:
            failure = AttemptFailed(Fault.RESUMING, "the database system is starting up")
            self.time.at(self.time.now + self.settings.round_trip, attempt.answer, failure)

    def leave(self) -> None:
        """End a session."""
        self.sessions -= 1
        if self._free_since is None:
            self._free_since = self.time.now

    def _wake(self) -> None:
        self.awake, self.awake_since, self._free_since = True, self.time.now, self.time.now
        held, self.held = self.held, []
        for attempt in held:
            self._queue(attempt)

    def _queue(self, attempt: SimulatedAttempt) -> None:
        """
        Start a login. The server works on all logins in turns: first it answers the question for TLS.

        After TLS, and before the password, PostgreSQL gives the login a slot or refuses it.
        """
        if not attempt.closed:
            self._work(self.settings.greeting, self._greet, attempt)

    def _work(self, seconds: float, done: Callable[[SimulatedAttempt], None], attempt: Any) -> None:
        """Call `done` when a processor has worked on a login for these seconds, after all before it."""
        number = min(range(len(self.busy_until)), key=self.busy_until.__getitem__)
        moment = max(self.busy_until[number], self.time.now) + seconds
        self.busy_until[number] = moment
        self.time.at(moment, done, attempt)

    def _greet(self, attempt: SimulatedAttempt) -> None:
        if not attempt.closed:
            attempt.greet()
            self._work(self.settings.refusal - self.settings.greeting, self._give_slot, attempt)

    def _give_slot(self, attempt: SimulatedAttempt) -> None:
        if attempt.closed:
            return
        if self.sessions >= self.settings.slots:
            failure = AttemptFailed(Fault.EXHAUSTED, "sorry, too many clients already")
            self.time.at(self.time.now + self.settings.round_trip, attempt.answer, failure)
            return
        self.sessions += 1
        if self.sessions == self.settings.slots:
            self._end_free_time()
        self.peak_sessions = max(self.peak_sessions, self.sessions)
        self._work(self.settings.login - self.settings.refusal, self._log_in, attempt)

    def _end_free_time(self) -> None:
        """Note that all slots are taken now. A long time with a free slot hides shorter ones before."""
        began = self._free_since or 0.0
        while self._free and self._free[-1][1] - self._free[-1][0] <= self.time.now - began:
            self._free.pop()
        self._free.append((began, self.time.now))
        self._free_since = None

    def _log_in(self, attempt: SimulatedAttempt) -> None:
        """Answer a login. Who has gone meanwhile frees the slot."""
        if attempt.closed:
            self.leave()
        else:
            attempt.has_session = True
            self.time.at(self.time.now + self.settings.round_trip, attempt.answer, None)


class SimulatedAttempt:
    """An attempt to log in, as `lambdadb.drivers.base.Attempt` describes it."""

    end_is_counted = False
    __slots__ = (
        "answered",
        "closed",
        "event",
        "failure",
        "got_first_byte",
        "greeted",
        "has_session",
        "server",
        "socket",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket = next(server.sockets)
        self.event = EVENT_READ
        self.greeted = False
        self.got_first_byte = False
        self.answered = False
        self.has_session = False
        self.closed = False
        self.failure: AttemptFailed | None = None
        server.arrive(self)

    def greet(self) -> None:
        """Receive the answer to the question for TLS, which comes before the login."""
        if not self.closed:
            self.greeted = True
            self.server.time.make_ready(self.socket)

    def answer(self, failure: AttemptFailed | None) -> None:
        """Receive the server's answer to the login."""
        if self.closed:
            return
        self.failure = failure
        self.greeted = self.answered = True
        self.server.time.make_ready(self.socket)

    def advance(self) -> bool:
        """Read what has come; True once logged in."""
        self.got_first_byte = self.greeted
        if not self.answered:
            return False
        if self.failure is not None:
            raise self.failure
        return True

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""
        return AttemptFailed(Fault.RESUMING, "accepted, and not answered", silent=True)

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
