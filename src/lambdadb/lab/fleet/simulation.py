"""A fleet of execution environments in virtual time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from random import Random

from lambdadb.deadline import Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.lab.fleet.clients import Client
from lambdadb.lab.fleet.server import Server, ServerSettings, SimulatedTarget
from lambdadb.lab.fleet.virtual_time import VirtualClock, VirtualTime
from lambdadb.policy import Policy


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """
    A fleet.

    Args:
        environments: How many there are.
        invocations: How many each has.
        starts_per_second: How fast new ones start; Lambda starts 1,000 in 10 s for a function.
        interval: Mean seconds between two invocations of an environment.
        timeout: Seconds of an invocation.
        work: Mean seconds for which an invocation uses its session: up to half more or less.
        seed: Decides all random numbers.
    """

    environments: int = 1000
    invocations: int = 1
    starts_per_second: float = 100.0
    interval: float = 60.0
    timeout: float = 30.0
    work: float = 0.05
    seed: int = 1


@dataclass
class FleetResult:
    """What became of a fleet, simulated or real."""

    waits: list[float] = field(default_factory=list)
    """Seconds until each invocation that had to connect had its session."""
    served: int = 0
    failed: int = 0
    connects: int = 0
    attempts: int = 0
    wasted: int = 0
    peak_sessions: int = 0
    peak_attempts: int = 0
    """The most attempts in one second."""
    last_success: float = 0.0
    """Seconds from the start until the last session was opened."""
    after_resume: float = 0.0
    """Seconds from the end of the resume until the last session was opened."""
    neglected: float = 0.0
    """The longest time for which an invocation waited while a slot was always free; simulated only."""
    timeline: list[tuple[float, int]] = field(default_factory=list)
    """Moments, and the sessions that are open from then on."""


class Simulation:
    """
    A fleet and its database.

    Connects are made by the code that runs in production: `HedgedConnect`, `ResumeRetry` and tenacity's
    loop. What is simulated is the server, the network and the time.
    """

    def __init__(
        self, fleet: FleetSettings, server: ServerSettings, client: Client, policy: Policy
    ) -> None:
        self.fleet = fleet
        self.client = client
        self.policy = policy
        self.time = VirtualTime()
        self.clock = VirtualClock(self.time)
        self.server = Server(self.time, server)
        self.target = SimulatedTarget(self.server)
        self.random = Random(fleet.seed)
        self.result = FleetResult()

    def run(self) -> FleetResult:
        """Run the fleet to its end."""
        logger = logging.getLogger("lambdadb")
        level = logger.level
        logger.setLevel(logging.ERROR)  # a thousand environments that wait would say so each
        try:
            for number in range(self.fleet.environments):
                turn = number + self.random.random()
                self.time.start(turn / self.fleet.starts_per_second, _Environment(self).invoke)
            self.time.run()
        finally:
            logger.setLevel(level)
        result, server = self.result, self.server
        result.attempts, result.wasted = server.attempts, server.wasted
        result.peak_sessions = server.peak_sessions
        result.peak_attempts = max(server.per_second.values(), default=0)
        result.after_resume = result.last_success - server.awake_since
        return result


class _Environment:
    """One environment: its invocations, one after the other, and its session."""

    __slots__ = ("_fleet", "_left", "_open", "_used")

    def __init__(self, fleet: Simulation) -> None:
        self._fleet = fleet
        self._left = fleet.fleet.invocations
        self._open = False
        self._used = 0

    def invoke(self) -> None:
        """One invocation: a session, some work, and what the policy makes of the session."""
        fleet = self._fleet
        self._used += 1
        if not self._open and not self._connect():
            fleet.result.failed += 1
            self._finish(fleet.time.now)
            return
        fleet.result.served += 1
        self._finish(fleet.time.now + fleet.fleet.work * fleet.random.uniform(0.5, 1.5))

    def _connect(self) -> bool:
        fleet, began = self._fleet, self._fleet.time.now
        end = Deadline(began + fleet.fleet.timeout)
        result = fleet.result
        try:
            fleet.client(fleet.target, fleet.clock, end, fleet.random)
        except AttemptFailed:
            return False
        finally:
            result.neglected = max(result.neglected, fleet.server.longest_free(began))
        self._open = True
        result.connects += 1
        result.waits.append(fleet.time.now - began)
        result.last_success = fleet.time.now
        result.timeline.append((fleet.time.now, fleet.server.sessions))
        return True

    def _finish(self, ended: float) -> None:
        """Plan the end of the session, and the next invocation."""
        fleet = self._fleet
        self._left -= 1
        if self._open:
            idle = fleet.policy.idle_session_timeout if fleet.policy.keeps else 0.0
            if idle is not None:
                fleet.time.at(ended + idle, self._close, self._used)
        if self._left:
            pause = fleet.random.expovariate(1.0 / fleet.fleet.interval)
            fleet.time.start(ended + pause, self.invoke)

    def _close(self, used: int) -> None:
        """End the session, unless it was used again since."""
        if self._open and self._used == used:
            self._open = False
            self._fleet.server.leave()
            self._fleet.result.timeline.append((self._fleet.time.now, self._fleet.server.sessions))
