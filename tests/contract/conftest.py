"""One suite of tests for every driver: a testbed for each, by the same few verbs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import column, table, text

import lambdadb
from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault
from lambdadb.lab import LabError
from lambdadb.lab.data_api import DataApi
from lambdadb.lab.data_api import Fault as ApiFault
from lambdadb.lab.faultproxy.fault_point import Action, Direction, FaultPoint
from lambdadb.lab.faultproxy.messages import MySQLMessages
from lambdadb.lab.faultproxy.proxy import Proxy
from lambdadb.lab.mariadb import MariaDB
from lambdadb.lab.postgres import Postgres

from . import scripted_driver

INSERT = text("INSERT INTO unit (name) VALUES (:name)")
NAME = table("unit", column("name")).c.name


class ScriptedTestbed:
    """The server in memory."""

    conflict = text("CONFLICT")
    drivername = "scripted+memory"
    tag_bytes = 10
    default_port = 1234
    keeps_outcomes = True
    takes_logins = True

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


class ProxiedTestbed:
    """A real server behind a proxy."""

    _proxy: Proxy
    _password = True

    def empty(self) -> None:
        raise NotImplementedError

    def lose_commit(self, engine: Any, *, done: bool) -> None:
        # The recording of one unit of the same shape tells which message the COMMIT is.
        self._proxy.arm(None)
        lambdadb.run_transaction(engine, lambda connection: connection.execute(INSERT, {"name": "seen"}))
        sent = [m for m in self._proxy.messages if m.direction is Direction.CLIENT_TO_SERVER]
        heard = [m for m in self._proxy.messages if m.direction is Direction.SERVER_TO_CLIENT]
        self.empty()
        direction = Direction.SERVER_TO_CLIENT if done else Direction.CLIENT_TO_SERVER
        last = len(heard if done else sent) - 1
        self._proxy.arm(FaultPoint(direction, Action.CLOSE, message=last))

    def refuse_attempts(self, count: int) -> None:
        self._proxy.arm(FaultPoint(Direction.SERVER_TO_CLIENT, Action.CLOSE, message=0))

    def refuse_login(self) -> None:
        self._password = False


class PsycopgTestbed(ProxiedTestbed):
    """An embedded PostgreSQL behind a proxy."""

    conflict = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
    drivername = "postgresql+psycopg"
    tag_bytes = 63
    default_port = 5432
    keeps_outcomes = True
    takes_logins = True

    def __init__(self, server: Postgres, proxy: Proxy) -> None:
        self._server = server
        self._proxy = proxy
        self._proxy.arm(None)
        self._admin = psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True)
        self._admin.execute("DROP TABLE IF EXISTS unit; CREATE TABLE unit (name text)")
        self._admin.execute("SET application_name = 'admin'")

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

    def empty(self) -> None:
        self._admin.execute("DELETE FROM unit")

    def rows(self) -> list[str]:
        return [name for (name,) in self._admin.execute("SELECT name FROM unit ORDER BY 1").fetchall()]


class PyMySQLTestbed(ProxiedTestbed):
    """A MariaDB behind a proxy."""

    conflict = text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")
    drivername = "mysql+pymysql"
    tag_bytes = 128
    default_port = 3306
    keeps_outcomes = False
    takes_logins = True

    def __init__(self, server: MariaDB, proxy: Proxy) -> None:
        import pymysql

        self._server = server
        self._proxy = proxy
        self._proxy.arm(None)
        place = {"host": "127.0.0.1", "port": server.port, "database": "orders"}
        self._admin = pymysql.connect(**place, user="app", password=server.password, autocommit=True)
        self._ask("DROP TABLE IF EXISTS unit")
        self._ask("CREATE TABLE unit (name VARCHAR(50) PRIMARY KEY)")

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._admin.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def close(self) -> None:
        self.end_sessions()
        self._admin.close()

    @property
    def url(self) -> str:
        url = self._server.url(port=self._proxy.port)
        return url if self._password else url.replace("//", "//no")

    def sessions(self) -> list[Any]:
        return [tag for (tag,) in self._ask(f"SELECT ATTR_VALUE {SESSIONS}")]

    def end_sessions(self) -> None:
        import pymysql

        while threads := self._ask(f"SELECT ID {SESSIONS}"):
            for (thread,) in threads:
                with contextlib.suppress(pymysql.OperationalError):  # it has just ended by itself
                    self._ask(f"KILL {thread}")
            time.sleep(0.01)

    def empty(self) -> None:
        self._ask("DELETE FROM unit")

    def rows(self) -> list[str]:
        return [name for (name,) in self._ask("SELECT name FROM unit ORDER BY 1")]


SESSIONS = """
    FROM information_schema.PROCESSLIST LEFT JOIN performance_schema.session_connect_attrs
         ON PROCESSLIST_ID = ID AND ATTR_NAME = 'program_name'
    WHERE USER = 'app' AND ID <> CONNECTION_ID()
"""


class AsyncmyTestbed(PyMySQLTestbed):
    """The same by a URL for asyncmy, which PyMySQL runs."""

    @property
    def url(self) -> str:
        return super().url.replace("+pymysql", "+asyncmy")


class DataApiTestbed:
    """An embedded PostgreSQL behind the emulated Data API. A session is a transaction of the API."""

    conflict = text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
    drivername = "postgresql+data_api"
    calls_before_commit = 3  # BeginTransaction, the question and the INSERT
    tag_bytes = 50
    keeps_outcomes = True
    takes_logins = False

    def __init__(self, server: Postgres, api: DataApi) -> None:
        self._api = api
        self._api.repair()
        self._admin = psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True)
        self._admin.execute("DROP TABLE IF EXISTS unit; CREATE TABLE unit (name text)")

    def close(self) -> None:
        self.end_sessions()
        self._admin.close()

    @property
    def url(self) -> str:
        return self._api.url()

    def sessions(self) -> list[Any]:
        return [one.caller for one in self._api.transactions]

    def end_sessions(self) -> None:
        query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        self._admin.execute(f"{query} WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")

    def rows(self) -> list[str]:
        return [name for (name,) in self._admin.execute("SELECT name FROM unit ORDER BY 1").fetchall()]

    def lose_commit(self, engine: Any, *, done: bool) -> None:
        with engine.connect():  # the first connect of an engine makes a call
            pass
        self._api.fail(ApiFault(effect=done), after=self.calls_before_commit)

    def refuse_attempts(self, count: int) -> None:
        self._api.fail(ApiFault(code="DatabaseResumingException"), times=count)

    def refuse_login(self) -> None:
        self._api.fail(ApiFault(code="InvalidSecretException"))


class MySQLDataApiTestbed(DataApiTestbed):
    """A MariaDB behind the emulated Data API."""

    conflict = PyMySQLTestbed.conflict
    drivername = "mysql+data_api"
    calls_before_commit = 2
    keeps_outcomes = False

    def __init__(self, direct: PyMySQLTestbed, api: DataApi) -> None:
        self._api = api
        self._api.repair()
        self._direct = direct

    def close(self) -> None:
        self._direct.close()

    def end_sessions(self) -> None:
        self._direct.end_sessions()

    def rows(self) -> list[str]:
        return self._direct.rows()


@pytest.fixture(scope="session")
def embedded() -> Iterator[tuple[Postgres, Proxy]]:
    """One server and its proxy for all contract tests."""
    with Postgres() as server, Proxy(server.port) as proxy:
        yield server, proxy


@pytest.fixture(scope="session")
def mariadb() -> Iterator[tuple[MariaDB, Proxy]]:
    """One MariaDB and its proxy for all contract tests; skips where it is not installed."""
    pytest.importorskip("pymysql", reason="needs the extra mysql")
    server = MariaDB(settings={"performance-schema": "ON"})
    try:
        server.start()
    except LabError as error:
        pytest.skip(str(error))
    with server, Proxy(server.port, protocol=MySQLMessages) as proxy:
        yield server, proxy


@pytest.fixture(scope="session")
def data_api(embedded: tuple[Postgres, Proxy]) -> Iterator[DataApi]:
    """The emulated Data API over the same server."""
    with DataApi(embedded[0]) as api:
        yield api


@pytest.fixture(scope="session")
def mysql_data_api(mariadb: tuple[MariaDB, Proxy]) -> Iterator[DataApi]:
    """The emulated Data API over the same MariaDB."""
    with DataApi(mariadb[0]) as api:
        yield api


# The URL for asyncmy leads to the same driver, so `nox -s mysql` alone runs it.
ASYNCMY = pytest.param("asyncmy", marks=pytest.mark.sweep)


@pytest.fixture(params=["scripted", "psycopg", "pymysql", ASYNCMY, "data_api", "mysql_data_api"])
def testbed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server of each kind, empty."""
    if request.param == "scripted":
        yield ScriptedTestbed()
        return
    testbed: Any
    if request.param == "psycopg":
        testbed = PsycopgTestbed(*request.getfixturevalue("embedded"))
    elif request.param.endswith("data_api"):
        api = request.getfixturevalue(request.param)
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        if request.param == "data_api":
            testbed = DataApiTestbed(request.getfixturevalue("embedded")[0], api)
        else:
            direct = PyMySQLTestbed(*request.getfixturevalue("mariadb"))
            testbed = MySQLDataApiTestbed(direct, api)
    else:
        kind = AsyncmyTestbed if request.param == "asyncmy" else PyMySQLTestbed
        testbed = kind(*request.getfixturevalue("mariadb"))
    yield testbed
    testbed.close()
