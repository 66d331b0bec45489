"""
Units of work whose connection is damaged at every place in turn, and what became of their rows.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

import lambdadb
from lambdadb.lab.faultproxy.fault_clients import SILENT_TIME, TIME, Client, Ours, ours, peers
from lambdadb.lab.faultproxy.fault_point import (
    Action,
    Direction,
    FaultPoint,
    Message,
    points_at_boundaries,
    points_in_bytes,
)
from lambdadb.lab.faultproxy.fault_servers import (
    SERVERS,
    EngineName,
    FaultServer,
    PostgresFaultServer,
)
from lambdadb.lab.faultproxy.proxy import Proxy
from lambdadb.lab.faultproxy.unit_shapes import HALF, Claim, UnitError
from lambdadb.lab.pgbouncer import PgBouncer

__all__ = ["FaultTestbed", "Trial", "open_testbed", "ours", "peers", "sweep"]

# Seconds after the invocation's end at which a client that still waits is called hung.
GRACE = 3.0
COMMITS = {server.commit for server in SERVERS.values()}
QUERIES = {server.query for server in SERVERS.values()}


@dataclass(frozen=True)
class Trial:
    """One fault, what the client was told, and what the server had."""

    client: str
    shape: str
    settings: str
    point: FaultPoint | None
    crashed: bool
    expected: tuple[Claim, ...]
    """What the client may be told when a damaged connection is all that happens."""
    claim: Claim
    rows: tuple[int, ...]
    """How often each of the unit's rows is there."""
    seconds: float
    error: str = ""

    @property
    def lost(self) -> bool:
        """The client was told that a row is committed, and it is not there."""
        return (self.claim == "committed" and 0 in self.rows) or (
            self.claim == HALF and self.rows[0] == 0
        )

    @property
    def doubled(self) -> bool:
        """A row is there more than once."""
        return max(self.rows) > 1

    @property
    def denied(self) -> bool:
        """The client was told that a row is not committed, and it is there."""
        told = self.rows[1:] if self.claim == HALF else self.rows
        return self.claim in ("failed", "ended", HALF) and any(told)

    @property
    def torn(self) -> bool:
        """A part of the unit is there and another is not, and the client was not told so."""
        # The doubt of a unit with a COMMIT of its own is whether what it did before that is there.
        told = self.claim == HALF or (self.claim == "in doubt" and HALF in self.expected)
        return not told and len(set(self.rows)) > 1

    @property
    def is_needless(self) -> bool:
        """The server could be asked, and the client was told something else all the same."""
        silent = self.point is not None and self.point.action in (Action.STALL, Action.DROP)
        return not self.crashed and not silent and self.claim not in self.expected

    @property
    def is_wrong(self) -> bool:
        """Whether what the client was told contradicts the table, or it was told nothing in time."""
        return self.lost or self.doubled or self.denied or self.torn or self.claim == "hung"


class FaultTestbed:
    """
    A server behind a fault proxy, for one client after the other.

    Args:
        port: The port that clients connect to; by default the fault proxy's.
    """

    def __init__(self, server: FaultServer, proxy: Proxy, *, port: int | None = None) -> None:
        self.server = server
        self.proxy = proxy
        self._port = port or proxy.port
        self._number = 0
        self._thread = ThreadPoolExecutor(1)

    @property
    def url(self) -> str:
        """Through the proxy."""
        return self.server.url(port=self._port)

    def close(self) -> None:
        """Let go; the server and the proxy stay."""
        self._thread.shutdown()

    def _new_name(self) -> str:
        # All of one length, so that a byte counted in the recording is the same byte in a trial.
        self._number += 1
        return f"{self._number:08d}"

    def recording(self, client: Client) -> list[Message]:
        """What passes while a warm client does one unit and nothing is damaged."""
        client.warm()
        self.proxy.arm(None)
        self._claim(client, self._new_name())
        messages = self.proxy.messages
        # The first connection only: a unit that reconnects has two.
        return [message for message in messages if message.connection == 0]

    def trial(self, client: Client, point: FaultPoint | None, *, crash: bool = False) -> Trial:
        """Damage one unit of a warm client, and see."""
        name = self._new_name()
        client.warm()
        self.proxy.on_fault = self.server.crash if crash else None
        self.proxy.arm(point)
        started = time.monotonic()
        claim, error = self._claim(client, name)
        seconds = time.monotonic() - started
        self.proxy.arm(None)
        settings = getattr(client, "settings", {})
        by = f"{client.settings_by}: " if isinstance(client, Ours) and settings else ""
        return Trial(
            client=client.name,
            shape=client.shape.name,
            settings=by + ", ".join(f"{name}={value}" for name, value in settings.items()),
            point=point,
            crashed=crash,
            expected=self._expected(client),
            claim=claim,
            rows=tuple(self.server.count_rows(name + part) for part in client.shape.parts),
            seconds=seconds,
            error=error,
        )

    def _expected(self, client: Client) -> tuple[Claim, ...]:
        may_ask = self.server.keeps_outcomes or getattr(client, "key", False)
        return client.shape.claims if may_ask else (*client.shape.claims, "in doubt")

    def _claim(self, client: Client, name: str) -> tuple[Claim, str]:
        """What the client is told of its rows."""
        future: Future[None] = self._thread.submit(client.unit, name)
        try:
            future.result(client.time + GRACE)
        except FutureTimeoutError:
            self.proxy.release()
            # Whatever it says now, it says too late.
            future.exception(60.0)
            return "hung", "still waiting after the invocation's end"
        except lambdadb.CommitInDoubt as error:
            return "in doubt", str(error)
        except lambdadb.TransactionEnded as error:
            return HALF if error.committed else "ended", str(error)
        except (SQLAlchemyError, self.server.driver_error, UnitError) as error:
            return "failed", f"{type(error).__name__}: {error}"
        return "committed", ""


@contextmanager
def open_testbed(engine: EngineName = "postgresql") -> Iterator[FaultTestbed]:
    """A testbed of one's own; raises `LabError` if its server is not installed."""
    server = SERVERS[engine]()
    try:
        with Proxy(server.port, protocol=server.protocol) as proxy:
            testbed = FaultTestbed(server, proxy)
            try:
                yield testbed
            finally:
                testbed.close()
    finally:
        server.close()


@contextmanager
def open_pgbouncer_testbed(damaged: Literal["client", "server"]) -> Iterator[FaultTestbed]:
    """
    A testbed of one's own with pgbouncer, which has one session of the server.

    Args:
        damaged: Whose connection to pgbouncer is damaged.

    Raises:
        LabError: pgbouncer is not installed.
    """
    # After a crash of the server pgbouncer tries again at once, not after 15 s.
    settings = {"server_login_retry": "0.1"}
    with ExitStack() as stack:
        server = PostgresFaultServer()
        stack.callback(server.close)
        if damaged == "client":
            bouncer = stack.enter_context(PgBouncer(server.postgres, pool_size=1, settings=settings))
            proxy = stack.enter_context(Proxy(bouncer.port))
        else:
            proxy = stack.enter_context(Proxy(server.port))
            bouncer = PgBouncer(server.postgres, pool_size=1, settings=settings, server_port=proxy.port)
            stack.enter_context(bouncer)
        testbed = FaultTestbed(server, proxy, port=proxy.port if damaged == "client" else bouncer.port)
        stack.callback(testbed.close)
        yield testbed


def commit_points(messages: list[Message], action: Action) -> list[FaultPoint]:
    """
    Every message boundary of a unit, and every byte of its COMMIT and of the answer to it.

    A unit that has no COMMIT, since it is refused, is damaged in its last query, or in its last message.
    """
    commit = (_find(messages, COMMITS) or _find(messages, QUERIES) or range(len(messages)))[-1]
    answers = itertools.takewhile(
        lambda message: message.direction is Direction.SERVER_TO_CLIENT, messages[commit + 1 :]
    )
    wanted = [
        *points_at_boundaries(messages, action),
        *points_in_bytes(messages, commit, commit + len(list(answers)), action),
    ]
    return list(dict.fromkeys(wanted))


def _find(messages: list[Message], kinds: set[str]) -> list[int]:
    """The numbers of the messages of these types."""
    return [number for number, message in enumerate(messages) if message.kind in kinds]


def byte_points(messages: list[Message], action: Action) -> list[FaultPoint]:
    """Every byte of a unit."""
    return points_in_bytes(messages, 0, len(messages) - 1, action)


def sweep(
    testbed: FaultTestbed,
    client: Client,
    action: Action,
    points: Callable[[list[Message], Action], list[FaultPoint]] = commit_points,
    *,
    crash: bool = False,
    sample: int | None = None,
    random: Random | None = None,
) -> Iterator[Trial]:
    """One client, damaged at each place in turn, or at `sample` places drawn at random."""
    client.open(testbed.url, testbed.server)
    try:
        chosen = points(testbed.recording(client), action)
        if sample is not None and sample < len(chosen):
            chosen = (random or Random(0)).sample(chosen, sample)
        for point in chosen:
            yield testbed.trial(client, point, crash=crash)
    finally:
        client.close()


def draw_client(random: Random, server: FaultServer) -> Ours:
    """A client, a unit of work and the settings of its sessions, drawn at random."""
    return Ours(
        policy=random.choice([lambdadb.PerEnvironment, lambdadb.PerInvocation])(),
        asynchronous=random.random() < 0.5,
        key=random.random() < 0.3,
        orm=random.random() < 0.3,
        shape=random.choice(server.shapes),
        settings=server.draw_settings(random),
        settings_by=random.choice(["SET", "server", "url"]),
        first_unit=random.random() < 0.3,
    )


# How often each is drawn. A crash takes a second, and a silent network takes the invocation's time.
_ACTIONS = {Action.CLOSE: 60, Action.RESET: 60, Action.STALL: 2, Action.DROP: 2}
_CRASHES = 0.05


def random_sweep(testbed: FaultTestbed, random: Random, *, places: int = 10) -> Iterator[Trial]:
    """Trials without end: a client drawn at random, damaged at `places` places, and another one."""
    while True:
        client = draw_client(random, testbed.server)
        client.open(testbed.url, testbed.server)
        try:
            messages = testbed.recording(client)
            for _ in range(places):
                action = random.choices(list(_ACTIONS), weights=list(_ACTIONS.values()))[0]
                silent = action in (Action.STALL, Action.DROP)
                client.time = SILENT_TIME if silent else TIME
                candidates = commit_points if random.random() < 0.5 else byte_points
                point = random.choice(candidates(messages, action))
                yield testbed.trial(client, point, crash=not silent and random.random() < _CRASHES)
        finally:
            client.close()
