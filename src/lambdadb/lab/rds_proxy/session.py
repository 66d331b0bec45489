"""The sessions that a proxy has on its server."""

from __future__ import annotations

import asyncio
import os
import re
import socket

from psycopg import pq
from psycopg.pq.abc import PGconn

# What a session reports at its start, for the clients' own logins.
REPORTED = (
    *("server_version", "server_encoding", "client_encoding", "is_superuser", "in_hot_standby"),
    *("session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes"),
    *("standard_conforming_strings", "default_transaction_read_only"),
)


CONNECT = 10  # seconds


class NoDatabase(Exception):
    """The server has no such database."""


class Session:
    """A session of the server. libpq logs in, and then leaves the socket to the proxy."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._watch: asyncio.Task[bytes] | None = None
        self.parameters = {
            name: value.decode()
            for name in REPORTED
            if (value := pgconn.parameter_status(name.encode())) is not None
        }

    @classmethod
    async def open(cls, port: int, user: str, password: str, database: str) -> Session:
        """
        Log in.

        Raises:
            NoDatabase: The server has no such database.
            ConnectionError: The server is not there, or gives no session now.
        """
        given = {"host": "127.0.0.1", "port": str(port), "user": user, "password": password}
        conninfo = " ".join(f"{name}='{value}'" for name, value in given.items())
        # A server that accepts and does not answer would keep the thread for good.
        conninfo += f" dbname='{database}' sslmode=disable connect_timeout={CONNECT}"
        pgconn = await asyncio.to_thread(pq.PGconn.connect, conninfo.encode())
        if pgconn.status != pq.ConnStatus.OK:
            text = pgconn.error_message.decode(errors="replace")
            pgconn.finish()
            if missing := re.search('database ".*" does not exist', text):
                raise NoDatabase(missing[0])
            raise ConnectionError(text)
        session = cls(pgconn)
        stream = socket.socket(fileno=os.dup(pgconn.socket))
        session.reader, session.writer = await asyncio.open_connection(sock=stream)
        return session

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def backend_pid(self) -> int:
        """The process id that the server gave it."""
        return self._pgconn.backend_pid

    @property
    def ended(self) -> bool:
        """Whether the server has ended it, while it was idle."""
        return self._watch is not None and self._watch.done()

    def start_watching(self) -> None:
        """Watch it while it is idle: the server then sends nothing but that it has ended it."""
        self._watch = asyncio.create_task(self.reader.read(1))

    async def stop_watching(self) -> None:
        """Leave what the server sends to the client that gets it."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    def close(self) -> None:
        """End it: the server rolls back what is open."""
        if self._watch is not None:
            self._watch.cancel()
        self.writer.close()
        self._pgconn.finish()


class Pool:
    """The sessions of one user in one database."""

    def __init__(self, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.idle: list[Session] = []
