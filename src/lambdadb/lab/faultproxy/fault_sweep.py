"""
A unit of work whose connection is damaged at every place in turn, and what became of its row each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import psycopg
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

import lambdadb
from lambdadb import aio
from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.proxy import (
    Action,
    FaultPoint,
    Message,
    Proxy,
    points_at_boundaries,
    points_in_bytes,
)
from lambdadb.lab.postgres import Postgres
from lambdadb.policy import Policy

# Seconds that one trial's invocation has; a third of them is kept for its answer.
TIME = 3.0
# Seconds between connects after a refusal: short, as a sweep waits for thousands of them.
PAUSE = 0.02
# Seconds after the invocation's end at which a client that still waits is called hung.
GRACE = 3.0
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
INSERT = text("INSERT INTO unit (name) VALUES (:name)")

Claim = Literal["committed", "failed", "in doubt", "hung"]


@dataclass(frozen=True)
class Trial:
    """One fault point, what the client believed afterwards, and what the server had."""

    client: str
    point: FaultPoint
    crashed: bool
    claim: Claim
    rows: int
    seconds: float
    error: str = ""

    @property
    def lost(self) -> bool:
        """The client was told that its row is committed, and it is not there."""
        return self.claim == "committed" and self.rows == 0

    @property
    def doubled(self) -> bool:
        """The row is there more than once."""
        return self.rows > 1

    @property
    def denied(self) -> bool:
        """The client was told that it failed, and the row is there: a repetition would double it."""
        return self.claim == "failed" and self.rows > 0


class Client(Protocol):
    """A way to get one row into the database, whatever it takes."""

    name: str
    time: float
    """Seconds that an invocation has."""

    def open(self, url: str) -> None: ...
    def warm(self) -> None: ...
    def unit(self, name: str) -> None: ...
    def close(self) -> None: ...


class FakeContext:
    """A Lambda context with so many seconds left."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """As on Lambda."""
        return max(0, round((self._ends - time.monotonic()) * 1000))


class Naive:
    """Plain SQLAlchemy, and the whole unit once more after each OperationalError, three times."""

    time = TIME

    def __init__(self, name: str, **keywords: Any) -> None:
        self.name = name
        self._keywords = keywords

    def open(self, url: str) -> None:
        """Make the engine."""
        self._engine = sqlalchemy.create_engine(url, **self._keywords)

    def warm(self) -> None:
        """Connect, as an invocation before has done."""
        while True:
            try:
                with self._engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            except sqlalchemy.exc.OperationalError:
                continue  # the session of the trial before was ended
            return

    def unit(self, name: str) -> None:
        """Insert the row, and again."""
        for attempt in range(3):
            try:
                with self._engine.begin() as connection:
                    connection.execute(INSERT, {"name": name})
            except sqlalchemy.exc.OperationalError:
                if attempt == 2:
                    raise
                time.sleep(0.2)
            else:
                return

    def close(self) -> None:
        """Let go."""
        self._engine.dispose()


class Ours:
    """lambdadb's `run_transaction` inside an invocation."""

    def __init__(self, policy: Policy, *, marked: bool = False, time: float = TIME) -> None:
        self.name = f"lambdadb {type(policy).__name__}" + (" marker" if marked else "")
        self.time = time
        self._marked = marked
        self._keywords = {
            "policy": policy,
            "retry": lambdadb.ResumeRetry(reserve=time / 3, max_backoff=PAUSE),
        }

    def open(self, url: str) -> None:
        """Make the engine."""
        self._engine = lambdadb.create_engine(url, **self._keywords)  # type: ignore[arg-type]

    def warm(self) -> None:
        """Connect, as an invocation before has done."""
        with self._engine.connect():
            pass

    def unit(self, name: str) -> None:
        """Insert the row in one invocation."""
        with lambdadb.invocation(self._engine, FakeContext(self.time)):
            lambdadb.run_transaction(
                self._engine,
                lambda connection: connection.execute(INSERT, {"name": name}),
                idempotency_key=_marker(name) if self._marked else None,
            )

    def close(self) -> None:
        """Let go."""
        self._engine.dispose()


class OursAsync:
    """The same on an event loop."""

    def __init__(self, policy: Policy, *, marked: bool = False, time: float = TIME) -> None:
        self.name = f"lambdadb {type(policy).__name__} async" + (" marker" if marked else "")
        self.time = time
        self._marked = marked
        self._keywords = {
            "policy": policy,
            "retry": lambdadb.ResumeRetry(reserve=time / 3, max_backoff=PAUSE),
        }

    def _run(self, work: Callable[[], Awaitable[object]]) -> None:
        self._loop.run_until_complete(work())

    def open(self, url: str) -> None:
        """Make the engine and its loop."""
        self._loop = asyncio.new_event_loop()
        self._engine = aio.create_async_engine(url, **self._keywords)  # type: ignore[arg-type]

    def warm(self) -> None:
        """Connect, as an invocation before has done."""

        async def connect() -> None:
            async with self._engine.connect():
                pass

        self._run(connect)

    def unit(self, name: str) -> None:
        """Insert the row in one invocation."""

        async def insert() -> None:
            async with lambdadb.invocation(self._engine, FakeContext(self.time)):
                await aio.run_transaction(
                    self._engine,
                    lambda connection: connection.execute(INSERT, {"name": name}),
                    idempotency_key=_marker(name) if self._marked else None,
                )

        self._run(insert)

    def close(self) -> None:
        """Let go."""
        self._run(self._engine.dispose)
        self._loop.close()


MARKER = sqlalchemy.Table(
    "marker", sqlalchemy.MetaData(), sqlalchemy.Column("name", sqlalchemy.Text, primary_key=True)
)


def _marker(name: str) -> tuple[Any, object]:
    return MARKER.c.name, name


def ours(*, marked: bool = False, time: float = TIME) -> list[Client]:
    """lambdadb with each policy, synchronous and asynchronous."""
    policies: list[Policy] = [lambdadb.PerEnvironment(), lambdadb.PerInvocation()]
    return [kind(policy, marked=marked, time=time) for kind in (Ours, OursAsync) for policy in policies]


def peers() -> list[Client]:
    """What many write today."""
    return [
        Naive("StaticPool, retry", poolclass=StaticPool),
        Naive("QueuePool, pre-ping, retry", poolclass=QueuePool, pool_pre_ping=True),
    ]


class FaultTestbed:
    """A server behind a fault proxy, for one client after the other."""

    def __init__(self, server: Postgres, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self._number = 0
        with psycopg.connect(self._direct, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS unit (name text)")
            connection.execute("CREATE TABLE IF NOT EXISTS marker (name text PRIMARY KEY)")

    @property
    def _direct(self) -> str:
        return self.server.url().replace("+psycopg", "")

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"{self.server.url(port=self.proxy.port)}?sslmode=disable"

    def _new_name(self) -> str:
        # All of one length, so that a byte counted in the recording is the same byte in a trial.
        self._number += 1
        return f"{self._number:08d}"

    def recording(self, client: Client) -> list[Message]:
        """What passes while a warm client does one unit and nothing is damaged."""
        client.warm()
        self.proxy.arm(None)
        client.unit(self._new_name())
        messages = self.proxy.messages
        # The first connection only: a unit that reconnects has two.
        return [message for message in messages if message.connection == 0]

    def trial(self, client: Client, point: FaultPoint, *, crash: bool = False) -> Trial:
        """Cut one unit of a warm client, and see."""
        name = self._new_name()
        client.warm()
        self.proxy.on_fault = self._crash if crash else None
        self.proxy.arm(point)
        started = time.monotonic()
        claim, error = self._claim(client, name)
        seconds = time.monotonic() - started
        self.proxy.arm(None)
        return Trial(client.name, point, crash, claim, self.rows(name), seconds, error)

    def _claim(self, client: Client, name: str) -> tuple[Claim, str]:
        """What the client says of its row."""
        with ThreadPoolExecutor(1) as thread:
            future: Future[None] = thread.submit(client.unit, name)
            try:
                future.result(client.time + GRACE)
            except FutureTimeoutError:
                self.proxy.release()
                # Whatever it says now, it says too late.
                future.exception(60.0)
                return "hung", "still waiting after the invocation's end"
            except lambdadb.CommitInDoubt as error:
                return "in doubt", str(error)
            except (SQLAlchemyError, psycopg.Error) as error:
                return "failed", f"{type(error).__name__}: {error}"
            return "committed", ""

    def rows(self, name: str) -> int:
        """How often the row is there, once every session that could still insert it is gone."""
        with psycopg.connect(self._direct, autocommit=True) as connection:
            end = time.monotonic() + 10.0
            while connection.execute(END_OTHERS).rowcount:
                if time.monotonic() > end:
                    raise LabError("A session of the server did not end in 10 s after its termination.")
                time.sleep(0.002)
            found = connection.execute("SELECT count(*) FROM unit WHERE name = %s", [name]).fetchone()
        assert found is not None
        return int(found[0])

    def _crash(self) -> None:
        self.server.stop("immediate")
        self.server.start()


@contextmanager
def open_testbed() -> Iterator[FaultTestbed]:
    """A server and a fault proxy in front of it, both its own."""
    with Postgres() as server, Proxy(server.port) as proxy:
        yield FaultTestbed(server, proxy)


def commit_points(messages: list[Message], action: Action) -> list[FaultPoint]:
    """Every message boundary of a unit, and every byte of its COMMIT and of the answer to it."""
    commit = max(number for number, message in enumerate(messages) if message.kind == "Q")
    wanted = [
        *points_at_boundaries(messages, action),
        *points_in_bytes(messages, commit, len(messages) - 1, action),
    ]
    return list(dict.fromkeys(wanted))


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
) -> Iterator[Trial]:
    """One client, its connection damaged at each place in turn."""
    client.open(testbed.url)
    try:
        for point in points(testbed.recording(client), action):
            yield testbed.trial(client, point, crash=crash)
    finally:
        client.close()
