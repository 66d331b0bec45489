"""One suite of tests for every driver: a testbed for each, by the same few verbs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault
from lambdadb.lab.faultproxy.fault_point import Action, Direction, FaultPoint
from lambdadb.lab.faultproxy.proxy import Proxy
from lambdadb.lab.postgres import Postgres

from . import scripted_driver

INSERT = text("INSERT INTO unit (name) VALUES (:name)")


class ScriptedTestbed:
    """The server in memory."""

    conflict = text("CONFLICT")
    drivername = "scripted+memory"
    tag_bytes = 10
    default_port = 1234

    def __init__(self) -> None:
        self.server = scripted_driver.SERVER
        vars(self.server).update(vars(scripted_driver.Server()))

    @property
    def url(self) -> str:
        return "scripted+memory://app@database/orders"

    def sessions(self) -> list[Any]:
        return [session.tag for session in self.server.sessions]

    def end_sessions(self) -> None:
        self.server.sessions.clear()

    def rows(self) -> list[str]:
        return sorted(self.server.rows)

    def lose_commit(self, engine: Any, *, done: bool) -> None:
        self.server.lose_commit = "done" if done else "not done"

    def refuse_attempts(self, count: int) -> None:
        self.server.failures = [AttemptFailed(Fault.RESUMING, "starting up") for _ in range(count)]

    def refuse_login(self) -> None:
        self.server.failures = [AttemptFailed(Fault.CREDENTIALS, "wrong password")]


class PsycopgTestbed:
    """An embedded PostgreSQL behind a proxy."""

    conflict = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
    drivername = "postgresql+psycopg"
    tag_bytes = 63
    default_port = 5432

    def __init__(self, server: Postgres, proxy: Proxy) -> None:
        self._server = server
        self._proxy = proxy
        self._proxy.arm(None)
        self._password = True
        self._admin = psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True)
        self._admin.execute("DROP TABLE IF EXISTS unit; CREATE TABLE unit (name text)")
        self._admin.execute("SET application_name = 'admin'")
        self._refused = 0

    def close(self) -> None:
        self.end_sessions()
        self._admin.close()

    @property
    def url(self) -> str:
        url = f"{self._server.url(port=self._proxy.port)}?sslmode=disable"
        return url if self._password else url.replace("postgresql+psycopg://", "postgresql+psycopg://no")

    def sessions(self) -> list[Any]:
        query = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"
        found = self._admin.execute(f"{query} AND pid <> pg_backend_pid()").fetchall()
        return [name for (name,) in found]

    def end_sessions(self) -> None:
        query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        self._admin.execute(f"{query} WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")

    def rows(self) -> list[str]:
        return [name for (name,) in self._admin.execute("SELECT name FROM unit ORDER BY 1").fetchall()]

    def lose_commit(self, engine: Any, *, done: bool) -> None:
        # The recording of one unit of the same shape tells which message the COMMIT is.
        self._proxy.arm(None)
        lambdadb.run_transaction(engine, lambda connection: connection.execute(INSERT, {"name": "seen"}))
        sent = [m for m in self._proxy.messages if m.direction is Direction.CLIENT_TO_SERVER]
        heard = [m for m in self._proxy.messages if m.direction is Direction.SERVER_TO_CLIENT]
        self._admin.execute("DELETE FROM unit")
        direction = Direction.SERVER_TO_CLIENT if done else Direction.CLIENT_TO_SERVER
        last = len(heard if done else sent) - 1
        self._proxy.arm(FaultPoint(direction, Action.CLOSE, message=last))

    def refuse_attempts(self, count: int) -> None:
        self._proxy.arm(FaultPoint(Direction.SERVER_TO_CLIENT, Action.CLOSE, message=0))

    def refuse_login(self) -> None:
        self._password = False


@pytest.fixture(scope="session")
def embedded() -> Iterator[tuple[Postgres, Proxy]]:
    """One server and its proxy for all contract tests."""
    with Postgres() as server, Proxy(server.port) as proxy:
        yield server, proxy


@pytest.fixture(params=["scripted", "psycopg"])
def testbed(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server of each kind, empty."""
    if request.param == "scripted":
        yield ScriptedTestbed()
        return
    testbed = PsycopgTestbed(*request.getfixturevalue("embedded"))
    yield testbed
    testbed.close()
