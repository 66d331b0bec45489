"""
The servers of a fault sweep: how each counts rows, crashes, and gives settings to its sessions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import quote

import psycopg
import pymysql

from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.messages import Messages, MySQLMessages, PostgreSQLMessages
from lambdadb.lab.faultproxy.mysql_units import MYSQL_SHAPES, SCHEMA, draw_mysql_settings
from lambdadb.lab.faultproxy.unit_shapes import HOSTILE, SHAPES, UnitShape, draw_settings
from lambdadb.lab.mariadb import NO_SYNC, MariaDB
from lambdadb.lab.postgres import Postgres

EngineName = Literal["postgresql", "mysql"]
REST = 10.0  # seconds in which every other session comes to rest
Settings = Mapping[str, str]


class FaultServer(Protocol):
    """A real server, as a sweep uses it."""

    protocol: ClassVar[type[Messages]]
    shapes: ClassVar[list[UnitShape]]
    """What units of work do on it."""
    commit: ClassVar[str]
    """The type of the message that carries COMMIT."""
    query: ClassVar[str]
    """The type of a query."""
    keeps_outcomes: ClassVar[bool]
    """Whether it can say what became of a transaction that has no idempotency key."""
    driver_error: ClassVar[type[Exception]]

    @property
    def port(self) -> int: ...
    def url(self, *, port: int | None = None) -> str: ...
    def count_rows(self, name: str) -> int: ...
    def crash(self) -> None: ...
    def close(self) -> None: ...
    def draw_settings(self, random: Random) -> dict[str, str]: ...
    def set_statement(self, settings: Settings) -> str: ...
    def add_to_url(self, url: str, settings: Settings) -> str: ...
    def set_defaults(self, settings: Settings) -> None: ...


class PostgresFaultServer:
    """An embedded PostgreSQL."""

    protocol: ClassVar[type[Messages]] = PostgreSQLMessages
    shapes: ClassVar[list[UnitShape]] = SHAPES
    commit: ClassVar[str] = "Q"
    query: ClassVar[str] = "Q"
    keeps_outcomes: ClassVar[bool] = True
    driver_error: ClassVar[type[Exception]] = psycopg.Error

    def __init__(self) -> None:
        self._server = Postgres()
        self._server.start()
        self._admin: psycopg.Connection[Any] | None = None
        connection = self._connection()
        connection.execute("CREATE TABLE unit (name text)")
        connection.execute("CREATE INDEX ON unit (name)")
        connection.execute("CREATE TABLE marker (name text PRIMARY KEY)")
        connection.execute(HOSTILE)

    @property
    def postgres(self) -> Postgres:
        """The server itself, for a pooler in front of it."""
        return self._server

    @property
    def port(self) -> int:
        """The server's own port."""
        return self._server.port

    def url(self, *, port: int | None = None) -> str:
        """SQLAlchemy URL of the tables' database, at another port if one is given."""
        return f"{self._server.url(port=port)}?sslmode=disable"

    def count_rows(self, name: str) -> int:
        """How often the row is there, once nothing happens any more in any other session."""
        busy = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        connection = self._connection()
        end = time.monotonic() + REST
        while found := connection.execute(busy).fetchall():
            _wait_for_rest(end, found)
        ((count,),) = connection.execute("SELECT count(*) FROM unit WHERE name = %s", [name])
        return int(count)

    def crash(self) -> None:
        """Crash the server, and start it again."""
        self._let_go()
        self._server.crash()
        self._server.start()

    def close(self) -> None:
        """Stop the server and remove its data."""
        self._let_go()
        self._server.close()

    def draw_settings(self, random: Random) -> dict[str, str]:
        """Settings of a session, drawn at random."""
        return draw_settings(random)

    def set_statement(self, settings: Settings) -> str:
        """The text that gives a session these settings."""
        each = (f"SET {name} = {_listed(name, value)}" for name, value in settings.items())
        return "; ".join(["RESET ROLE", *each])

    def add_to_url(self, url: str, settings: Settings) -> str:
        """A URL whose sessions have these settings."""
        given = [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
        return f"{url}&options={quote(' '.join(given))}"

    def set_defaults(self, settings: Settings) -> None:
        """Give these settings, and no others, to each session that begins."""
        connection = self._connection()
        connection.execute("ALTER ROLE postgres RESET ALL")
        for name, value in settings.items():
            connection.execute(f"ALTER ROLE postgres SET {name} = {_listed(name, value)}")

    def _connection(self) -> psycopg.Connection[Any]:
        if self._admin is None or self._admin.closed:
            # What ALTER ROLE says of sessions is not for this one.
            plain = (
                "-c search_path=public -c client_encoding=UTF8 -c role=none"
                " -c default_transaction_read_only=off"
            )
            url = self._server.url().replace("+psycopg", "")
            self._admin = psycopg.connect(url, autocommit=True, options=plain)
        return self._admin

    def _let_go(self) -> None:
        if self._admin is not None:
            self._admin.close()


class MariaDBFaultServer:
    """
    A real MariaDB.

    Raises:
        LabError: It is not installed; the message has the command that installs it.
    """

    protocol: ClassVar[type[Messages]] = MySQLMessages
    shapes: ClassVar[list[UnitShape]] = MYSQL_SHAPES
    commit: ClassVar[str] = "03 COMMIT"
    query: ClassVar[str] = "03"  # COM_QUERY
    keeps_outcomes: ClassVar[bool] = False
    driver_error: ClassVar[type[Exception]] = pymysql.Error

    def __init__(self) -> None:
        self._server = MariaDB(settings=NO_SYNC)
        self._server.start()
        self._admin: pymysql.Connection[Any] | None = None
        self._defaults: dict[str, str] = {}
        for statement in SCHEMA:
            self._ask(statement)

    @property
    def port(self) -> int:
        """The server's own port."""
        return self._server.port

    def url(self, *, port: int | None = None) -> str:
        """SQLAlchemy URL of the tables' database, at another port if one is given."""
        return self._server.url(port=port)

    def count_rows(self, name: str) -> int:
        """How often the row is there, once nothing happens any more in any other session."""
        busy = (
            "SELECT ID, COMMAND, INFO FROM information_schema.PROCESSLIST"
            " WHERE ID <> CONNECTION_ID() AND COMMAND NOT IN ('Sleep', 'Daemon')"
        )
        end = time.monotonic() + REST
        while found := self._ask(busy):
            _wait_for_rest(end, found)
        # A locking read waits for transactions that are still open.
        counting = "SELECT COUNT(*) FROM unit WHERE name = %s LOCK IN SHARE MODE"
        ((count,),) = self._ask(counting, [name])
        return int(count)

    def crash(self) -> None:
        """Crash the server, and start it again."""
        self._let_go()
        self._server.crash()
        self._server.start()
        self.set_defaults(self._defaults)  # SET GLOBAL lasts until a restart

    def close(self) -> None:
        """Stop the server and remove its data."""
        self._let_go()
        self._server.close()

    def draw_settings(self, random: Random) -> dict[str, str]:
        """Settings of a session, drawn at random."""
        return draw_mysql_settings(random)

    def set_statement(self, settings: Settings) -> str:
        """The text that gives a session these settings."""
        return "SET " + ", ".join(f"{name} = {value}" for name, value in settings.items())

    def add_to_url(self, url: str, settings: Settings) -> str:
        """A URL whose sessions have these settings."""
        return f"{url}?init_command={quote(self.set_statement(settings))}"

    def set_defaults(self, settings: Settings) -> None:
        """Give these settings, and no others, to each session that begins."""
        values = dict.fromkeys(self._defaults, "DEFAULT") | dict(settings)
        for name, value in values.items():
            if name != "timestamp":  # it has no default for all sessions
                self._ask(f"SET GLOBAL {name} = {value}")
        self._defaults = dict(settings)

    def _ask(self, query: str, parameters: object = None) -> list[tuple[Any, ...]]:
        if self._admin is None or not self._admin.open:
            self._admin = pymysql.connect(
                host="127.0.0.1",
                port=self._server.port,
                user="app",
                password=self._server.password,
                database="orders",
                autocommit=True,
                init_command="SET sql_mode = DEFAULT",
            )
        with self._admin.cursor() as cursor:
            cursor.execute(query, parameters)
            return list(cursor.fetchall())

    def _let_go(self) -> None:
        if self._admin is not None and self._admin.open:
            self._admin.close()


SERVERS: dict[EngineName, type[PostgresFaultServer] | type[MariaDBFaultServer]] = {
    "postgresql": PostgresFaultServer,
    "mysql": MariaDBFaultServer,
}


def _wait_for_rest(end: float, busy: object) -> None:
    if time.monotonic() > end:
        raise LabError(f"Sessions of the server that did not come to rest in {REST:.0f} s: {busy}.")
    time.sleep(0.002)


def _escaped(value: str) -> str:
    return value.replace(" ", "\\ ")


def _listed(name: str, value: str) -> str:
    return value if name == "search_path" else f"'{value}'"
