"""
Ways to get a unit of work into the database, whatever it takes: lambdadb's, and what many write today.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import QueuePool, StaticPool

import lambdadb
from lambdadb import aio
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.faultproxy.fault_servers import FaultServer
from lambdadb.lab.faultproxy.unit_shapes import SHAPES, UnitShape, insert
from lambdadb.policy import Policy

# Seconds that one trial's invocation has, and those of them that are kept for its answer. A unit takes
# milliseconds: only a silent network makes it wait that long, for which a sweep gives less.
TIME, RESERVE = 30.0, 0.5
SILENT_TIME = 1.0
# Seconds between connects after a refusal: short, as a sweep waits for thousands of them.
PAUSE = 0.02
ATTEMPTS = 200  # to connect before a trial
MARKER = sqlalchemy.Table(
    "marker", sqlalchemy.MetaData(), sqlalchemy.Column("name", sqlalchemy.Text, primary_key=True)
)
SettingsBy = Literal["SET", "server", "url"]


class Client(Protocol):
    """A way to get one unit of work into the database."""

    time: float
    """Seconds that an invocation has."""
    shape: UnitShape

    @property
    def name(self) -> str: ...

    def open(self, url: str, server: FaultServer) -> None: ...
    def warm(self) -> None: ...
    def unit(self, name: str) -> None: ...
    def close(self) -> None: ...


class Naive:
    """Plain SQLAlchemy, and the whole unit once more after each OperationalError, three times."""

    time = TIME
    shape = SHAPES[0]

    def __init__(self, name: str, **keywords: Any) -> None:
        self._name = name
        self._keywords = keywords

    @property
    def name(self) -> str:
        """In a few words."""
        return self._name

    def open(self, url: str, server: FaultServer) -> None:
        """Make the engine."""
        del server
        self._engine = sqlalchemy.create_engine(url, **self._keywords)

    def warm(self) -> None:
        """Connect, as an invocation before has done."""
        while True:
            try:
                with self._engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            except sqlalchemy.exc.DBAPIError:
                continue  # the session of the trial before was ended
            return

    def unit(self, name: str) -> None:
        """Insert the row, and again."""
        for attempt in range(3):
            try:
                with self._engine.begin() as connection:
                    insert(connection, f"{name}a")
            except sqlalchemy.exc.OperationalError:
                if attempt == 2:
                    raise
                time.sleep(0.2)
            else:
                return

    def close(self) -> None:
        """Let go."""
        self._engine.dispose()


@dataclass
class Ours:
    """lambdadb's `run_transaction` inside an invocation, on an engine or with the ORM."""

    policy: Policy = field(default_factory=lambdadb.PerEnvironment)
    asynchronous: bool = False
    key: bool = False
    """Whether it has an idempotency key."""
    orm: bool = False
    shape: UnitShape = SHAPES[0]
    settings: dict[str, str] = field(default_factory=dict)
    """The session's settings."""
    settings_by: SettingsBy = "SET"
    time: float = TIME
    first_unit: bool = False
    """Whether its connection has done no unit of work before, if it keeps its connection."""

    @property
    def name(self) -> str:
        """In a few words."""
        words = [" async"] * self.asynchronous + [" key"] * self.key + [" ORM"] * self.orm
        words += [" first"] * self.first_unit
        return f"lambdadb {type(self.policy).__name__}{''.join(words)}"

    def open(self, url: str, server: FaultServer) -> None:
        """Make the engine."""
        self._server = server
        keywords: dict[str, Any] = {
            "policy": self.policy,
            "retry": lambdadb.ResumeRetry(reserve=RESERVE, max_backoff=PAUSE),
        }
        if "default_transaction_read_only" in self.settings:
            keywords["execution_options"] = {"postgresql_readonly": False}
        if self.settings_by == "url" and self.settings:
            url = server.add_to_url(url, self.settings)
        if self.settings_by == "server":
            server.set_defaults(self.settings)
        if not self.asynchronous:
            self._engine: Any = lambdadb.create_engine(url, **keywords)
            self._target: Any = sessionmaker(self._engine) if self.orm else self._engine
            return
        self._loop = asyncio.new_event_loop()
        self._engine = aio.create_async_engine(url, **keywords)
        self._target = async_sessionmaker(self._engine) if self.orm else self._engine

    def warm(self) -> None:
        """Connect, as an invocation before has done, and leave the session's settings behind."""
        for _ in range(ATTEMPTS):
            try:
                self._warm_once()
            # A pooler has not found out yet that its session is gone; or a session ends with its
            # COMMIT (completion_type=RELEASE), and the end has not come yet.
            except (lambdadb.ConnectFailed, sqlalchemy.exc.OperationalError):
                time.sleep(PAUSE)
            else:
                return
        self._warm_once()

    def _warm_once(self) -> None:
        if not self.asynchronous:
            if self.first_unit:
                self._engine.dispose()
            with self._engine.connect() as connection:
                self._set(connection)
            if not self.first_unit:
                lambdadb.run_transaction(self._engine, self._read)
            return
        self._loop.run_until_complete(self._warm())

    async def _warm(self) -> None:
        if self.first_unit:
            await self._engine.dispose()
        async with self._engine.connect() as connection:
            await connection.run_sync(self._set)
        if not self.first_unit:
            await aio.run_transaction(self._engine, lambda target: target.run_sync(self._read))

    @staticmethod
    def _read(connection: sqlalchemy.Connection) -> None:
        connection.execute(text("SELECT 1")).all()

    def _set(self, connection: sqlalchemy.Connection) -> None:
        if self.settings and self.settings_by == "SET":
            connection.exec_driver_sql(self._server.set_statement(self.settings))
            connection.commit()

    def unit(self, name: str) -> None:
        """Do the unit of work in one invocation."""
        key = (MARKER.c.name, name) if self.key else None
        work = self.shape.work
        if not self.asynchronous:
            with lambdadb.invocation(self._engine, LambdaContext(self.time)):
                lambdadb.run_transaction(
                    self._target, lambda target: work(target, name), idempotency_key=key
                )
            return

        async def run() -> None:
            async with lambdadb.invocation(self._engine, LambdaContext(self.time)):
                await aio.run_transaction(
                    self._target, lambda target: target.run_sync(work, name), idempotency_key=key
                )

        self._loop.run_until_complete(run())

    def close(self) -> None:
        """Let go."""
        if self.settings_by == "server":
            self._server.set_defaults({})
        if not self.asynchronous:
            self._engine.dispose()
            return
        self._loop.run_until_complete(self._engine.dispose())
        self._loop.close()


def ours(*, key: bool = False, time: float = TIME) -> list[Client]:
    """lambdadb with each policy, synchronous and asynchronous."""
    return [
        Ours(policy(), asynchronous, key, time=time)
        for asynchronous in (False, True)
        for policy in (lambdadb.PerEnvironment, lambdadb.PerInvocation)
    ]


def peers() -> list[Client]:
    """What many write today."""
    return [
        Naive("StaticPool, retry", poolclass=StaticPool),
        Naive("QueuePool, pre-ping, retry", poolclass=QueuePool, pool_pre_ping=True),
    ]
