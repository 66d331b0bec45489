"""
The proxies that the database tests may run behind, and who is connected to them.

`pytest tests/database --proxy KIND` chooses one. Behind it, a session of these tests is a client's
connection to the proxy: the server's own sessions are the proxy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from lambdadb.lab.pgbouncer import PgBouncer
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.rds_proxy import RdsProxy
from lambdadb.testing.sessions import PostgresSessions, Session, Sessions

KINDS = ("pgbouncer", "rds-proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy before the tests' server."""

    url: str
    """Of the maintenance database."""
    list_clients: Callable[[str], list[tuple[str, int | None]]]
    """application_name of each client of a database, and the process id of the session that it has."""
    end_clients: Callable[[str], None]
    """Closes the connections of a database's clients."""


class Clients(Sessions):
    """The clients of one database at a proxy. One without a session of the server is idle."""

    def __init__(self, proxy: Proxy, database: str, behind: PostgresSessions) -> None:
        self._proxy = proxy
        self._database = database
        self._behind = behind
        self.wait_for_statement = behind.wait_for_statement

    def __call__(self) -> list[Session]:
        """Those that are connected now; 0 is the process id of one without a session."""
        clients = self._proxy.list_clients(self._database)
        states = {session.pid: session.state for session in self._behind()}
        return [Session(pid or 0, name, states.get(pid or 0, "idle")) for name, pid in clients]

    def terminate(self, *, besides: int | None = None) -> None:
        """End the clients, and the proxy's sessions; `besides` is the one of a direct connection."""
        self._proxy.end_clients(self._database)
        self._behind.terminate(besides=besides)
        self.become(0)


class Everyone(dict[str, str]):
    """The secrets of a proxy that knows every user, with one password."""

    def __init__(self, password: str) -> None:
        self._password = password

    def get(self, user: str, default: object = None) -> str:  # type: ignore[override]
        return self._password


@contextmanager
def open_proxy(kind: str, server: Postgres) -> Iterator[Proxy]:
    """Start a proxy before a server."""
    with _open_pgbouncer(server) if kind == "pgbouncer" else _open_rds_proxy(server) as proxy:
        yield proxy


@contextmanager
def _open_pgbouncer(server: Postgres) -> Iterator[Proxy]:
    # A session that ended with its database is replaced at once.
    with PgBouncer(server, settings={"server_login_retry": "0.1"}) as pgbouncer:

        def list_clients(database: str) -> list[tuple[str, int | None]]:
            pids = {row["ptr"]: row["remote_pid"] for row in pgbouncer.show("SERVERS")}
            return [
                (row["application_name"], pids.get(row["link"]))
                for row in pgbouncer.show("CLIENTS")
                if row["database"] == database
            ]

        def end_clients(database: str) -> None:
            with suppress(psycopg.Error):  # pgbouncer does not know a database without clients
                pgbouncer.command(f"KILL {database}")
                pgbouncer.command(f"RESUME {database}")

        yield Proxy(pgbouncer.url(), list_clients, end_clients)


@contextmanager
def _open_rds_proxy(server: Postgres) -> Iterator[Proxy]:
    with RdsProxy(server, users=Everyone(server.password), borrow_timeout=5.0) as proxy:
        yield Proxy(proxy.url(), proxy.list_clients, proxy.end_clients)
