"""
The servers that the database tests run on, and who is connected to them.

`pytest tests/database --postgres KIND` chooses one. Behind a proxy, a session of these tests is a
client's connection to the proxy: the server's own sessions are the proxy's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from lambdadb.lab.pgbouncer import PgBouncer
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.rds_proxy import RdsProxy

PASSWORD = "canary-7f3a9c51"
Rows = list[tuple[int, str, str]]  # process id on the server, application_name, state

_SESSIONS = "SELECT pid, application_name, state FROM pg_stat_activity WHERE datname = %s"


class Sessions:
    """The sessions of one database, as the server sees them."""

    def __init__(self, admin: psycopg.Connection[Any], database: str, way: float = 0.0) -> None:
        self._admin = admin
        self._way = way
        self._database = database

    def __call__(self) -> Rows:
        """Process id, application_name and state of each."""
        return self._admin.execute(_SESSIONS, [self._database]).fetchall()

    def wait_for_statement(self, statement: str, seconds: float = 30.0) -> None:
        """Wait until one of them runs it."""
        query = "SELECT FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query = %s"
        end = time.monotonic() + seconds
        while not self._admin.execute(query, [self._database, statement]).fetchall():
            assert time.monotonic() < end, f"no session runs {statement}"
            time.sleep(0.01)

    def become(self, count: int, seconds: float = 10.0) -> Rows:
        """Wait until there are `count`: a closed session takes a moment to leave the view."""
        end = time.monotonic() + seconds
        while len(now := self()) != count:
            assert time.monotonic() < end, f"{len(now)} sessions instead of {count}: {now}"
            time.sleep(0.01)
        return now

    def terminate(self) -> None:
        """End all of them, as an operator or a failover would."""
        for pid, *_ in self():
            self._admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        self.become(0)
        time.sleep(self._way)

    def terminate_others(self, mine: psycopg.Connection[Any]) -> None:
        """End all of them but one, and wait until they are gone."""
        for pid, *_ in self():
            if pid != mine.info.backend_pid:
                self._admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        self.become(1)


class Clients(Sessions):
    """
    The clients of one database at a proxy. A client without a session of the server is idle.

    Args:
        clients: Returns the application_name of each client, and the process id of the session that it
            has on the server, or None.
        kill: Ends the clients.
    """

    def __init__(
        self,
        admin: psycopg.Connection[Any],
        database: str,
        clients: Callable[[str], list[tuple[str, int | None]]],
        kill: Callable[[str], None],
    ) -> None:
        super().__init__(admin, database)
        self._clients = clients
        self._kill = kill

    def __call__(self) -> Rows:
        """Process id on the server, or 0, application_name and state of each client."""
        clients = self._clients(self._database)
        states = {pid: state for pid, _, state in super().__call__()}
        return [(pid or 0, name, states.get(pid or 0, "idle")) for name, pid in clients]

    def terminate(self) -> None:
        """End the clients, and the proxy's sessions."""
        self._kill(self._database)
        Sessions(self._admin, self._database).terminate()
        self.become(0)

    def terminate_others(self, mine: psycopg.Connection[Any]) -> None:
        """End the clients, and the proxy's sessions; `mine` is connected directly."""
        self._kill(self._database)
        Sessions(self._admin, self._database).terminate_others(mine)


@dataclass(frozen=True)
class Server:
    """A server of the tests, by the URLs of its maintenance database."""

    url: str
    """As the tests reach it."""
    direct: str
    """As it is reached without a proxy."""
    make_sessions: Callable[[psycopg.Connection[Any], str], Sessions] = Sessions


@contextmanager
def _embedded() -> Iterator[Server]:
    with Postgres(password=PASSWORD) as server:
        yield Server(server.url(), server.url())


@contextmanager
def _container() -> Iterator[Server]:
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("LAMBDADB_POSTGRES_IMAGE", "pgvector/pgvector:pg17")
    with PostgresContainer(
        image, username="postgres", password=PASSWORD, dbname="postgres"
    ) as container:
        url = container.get_connection_url(driver="psycopg")
        # A container's network hands on the end of a connection after the server has forgotten it.
        yield Server(url, url, lambda admin, database: Sessions(admin, database, way=0.05))


@contextmanager
def _pgbouncer() -> Iterator[Server]:
    # A session that ended with its database is replaced at once.
    settings = {"server_login_retry": "0.1"}
    with Postgres(password=PASSWORD) as server, PgBouncer(server, settings=settings) as proxy:

        def clients(database: str) -> list[tuple[str, int | None]]:
            pids = {row["ptr"]: row["remote_pid"] for row in proxy.show("SERVERS")}
            return [
                (row["application_name"], pids.get(row["link"]))
                for row in proxy.show("CLIENTS")
                if row["database"] == database
            ]

        def kill(database: str) -> None:
            with suppress(psycopg.Error):  # pgbouncer does not know a database without clients
                proxy.command(f"KILL {database}")
                proxy.command(f"RESUME {database}")

        yield Server(
            proxy.url(),
            server.url(),
            lambda admin, database: Clients(admin, database, clients, kill),
        )


@contextmanager
def _rds_proxy() -> Iterator[Server]:
    with Postgres(password=PASSWORD) as server, RdsProxy(server) as proxy:
        yield Server(
            proxy.url(),
            server.url(),
            lambda admin, database: Clients(admin, database, proxy.list_clients, proxy.end_clients),
        )


SERVERS = {
    "embedded": _embedded,
    "container": _container,
    "pgbouncer": _pgbouncer,
    "rds-proxy": _rds_proxy,
}
