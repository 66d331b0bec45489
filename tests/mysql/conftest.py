"""A real MariaDB behind a proxy, an empty table for each test, and the server's own view of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

import lambdadb
import lambdadb.aio
from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.messages import MySQLMessages
from lambdadb.lab.faultproxy.proxy import Proxy
from lambdadb.lab.mariadb import NO_SYNC, MariaDB

from ..waiting import wait_until

PASSWORD = "canary-7f3a9c51"
SESSIONS = """
    FROM information_schema.PROCESSLIST LEFT JOIN performance_schema.session_connect_attrs
         ON PROCESSLIST_ID = ID AND ATTR_NAME = 'program_name'
    WHERE USER <> 'event_scheduler' AND ID <> CONNECTION_ID()
"""


class Server:
    """The server, and what a connection beside the tested ones asks it."""

    insert = text("INSERT INTO unit (name) VALUES (:name)")

    def __init__(self, server: MariaDB, proxy: Proxy) -> None:
        self.proxy = proxy
        self._server = server
        place = {"host": "127.0.0.1", "port": server.port, "database": "orders"}
        self._admin = pymysql.connect(**place, user="app", password=PASSWORD, autocommit=True)

    @property
    def url(self) -> str:
        """The URL of its database, through the proxy."""
        return self._server.url(port=self.proxy.port)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._admin.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def rows(self) -> list[str]:
        """What units of work have stored."""
        return [name for (name,) in self.ask("SELECT name FROM unit ORDER BY name")]

    def empty(self) -> None:
        """Delete them."""
        self.ask("DELETE FROM unit")

    def sessions(self) -> list[Any]:
        """The tags of the other sessions."""
        return [tag for (tag,) in self.ask(f"SELECT ATTR_VALUE {SESSIONS}")]

    def terminate(self) -> None:
        """End the other sessions."""
        while threads := self.ask(f"SELECT ID {SESSIONS}"):
            for (thread,) in threads:
                with contextlib.suppress(pymysql.OperationalError):  # it has just ended by itself
                    self.ask(f"KILL {thread}")
            time.sleep(0.01)

    def count(self) -> int:
        """How many there are."""
        return len(self.sessions())

    def become(self, count: int) -> None:
        """Wait until there are so many."""
        wait_until(lambda: self.count() == count)

    def await_no_transaction(self) -> None:
        """Wait until no other session has a transaction open."""
        threads = f"SELECT ID {SESSIONS}"
        query = f"SELECT 1 FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id IN ({threads})"
        # InnoDB renews this view only if it was not read for 0.1 s.
        wait_until(lambda: not self.ask(query), pause=0.2)

    def close(self) -> None:
        """Close the connection beside the tested ones."""
        self._admin.close()


def start(settings: dict[str, str] | None = None) -> MariaDB:
    """Start a server; skip the test where it is not installed. `nox -s mysql` fails there."""
    server = MariaDB(
        settings={**NO_SYNC, "performance-schema": "ON", **(settings or {})}, password=PASSWORD
    )
    try:
        server.start()
    except LabError as error:
        server.close()
        pytest.skip(str(error))
    return server


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server and its proxy for all tests."""
    with start() as mariadb, Proxy(mariadb.port, protocol=MySQLMessages) as proxy:
        server = Server(mariadb, proxy)
        server.ask("CREATE TABLE unit (name VARCHAR(50) PRIMARY KEY)")
        yield server
        server.close()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The server with an empty table, and no session of another test."""
    shared_server.proxy.arm(None)
    shared_server.empty()
    yield shared_server
    shared_server.proxy.release()
    shared_server.terminate()


class Mode:
    """How a test's steps are run: as they are, or in a greenlet of an event loop."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def create_engine(self, url: str, **keywords: Any) -> Any:
        """Make an engine. Of an asynchronous one it is the synchronous core, for use in `run`."""
        if self.asynchronous:
            return lambdadb.aio.create_async_engine(url, **keywords).sync_engine
        return lambdadb.create_engine(url, **keywords)

    def run(self, steps: Callable[[], Any]) -> Any:
        """Run the test's steps."""
        return asyncio.run(greenlet_spawn(steps)) if self.asynchronous else steps()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Synchronous and asynchronous engines."""
    return Mode(asynchronous=request.param == "async")
