"""A MariaDB database of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import make_url

from lambdadb.lab import LabError
from lambdadb.lab.mariadb import MariaDB
from lambdadb.testing.sessions import BESIDE, Session, Sessions

SETTINGS = {"performance-schema": "ON"}  # which knows the program_name of a session


class MariaDBDatabase:
    """
    A MariaDB database of one test.

    Attributes:
        name: Its name.
        url: Its SQLAlchemy URL, with the password in clear text.
        sessions: Its sessions, as the server sees them.
    """

    def __init__(self, server: MariaDB, name: str) -> None:
        self.server = server
        self.name = name
        self.sessions = MariaDBSessions(server, name)

    def __repr__(self) -> str:
        return f"<MariaDBDatabase {self.name}>"

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """
        Run a statement in a session of its own, and return its rows; none if it gives none.

        Args:
            statement: With `%s` for each parameter. It may be several statements.

        Raises:
            LabError: The cluster before the server is paused.
            pymysql.MySQLError: What the server says.
        """
        if not self.server.running:
            raise LabError(f"{self.name}: the cluster is paused. Connect through it: that wakes it up.")
        return run(self.url, statement, *parameters)


class MariaDBSessions(Sessions):
    """The sessions of one MariaDB database, as the server sees them; not those of the fixtures."""

    def __init__(self, server: MariaDB, database: str) -> None:
        self._server = server
        self._database = database

    def __call__(self) -> list[Session]:
        """Those that are open now."""
        query = """
            SELECT ID, COALESCE(ATTR_VALUE, ''), LOWER(COMMAND)
            FROM information_schema.PROCESSLIST LEFT JOIN performance_schema.session_connect_attrs
                 ON PROCESSLIST_ID = ID AND ATTR_NAME = 'program_name'
            WHERE DB = %s AND COALESCE(ATTR_VALUE, '') <> %s
        """
        rows = run(self._server.url(), query, self._database, BESIDE) if self._server.running else []
        return [Session(*row) for row in rows]

    def terminate(self, *, besides: int | None = None) -> None:
        """End all of them, as an operator or a failover would, or all but the one with this id."""
        for session in self():
            if session.pid != besides:
                run(self._server.url(), f"KILL IF EXISTS {session.pid}")
        self.become(0 if besides is None else 1)


def run(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run statements in a session of their own, and return the rows of the last one."""
    place = make_url(url)
    with pymysql.connect(
        host=place.host,
        port=place.port,
        user=place.username,
        password=place.password,
        database=place.database,
        program_name=BESIDE,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(statement, parameters or None)
        while cursor.nextset():  # raises the error of the next statement
            pass
        return list(cursor.fetchall())


@contextmanager
def take_database(server: MariaDB, create_schema: Callable[[str], object]) -> Iterator[MariaDBDatabase]:
    """Make a database with its tables, and drop it at the end."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    run(server.url(), f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    database = MariaDBDatabase(server, name)
    create_schema(database.url)
    yield database
    database.sessions.terminate()
    run(server.url(), f"DROP DATABASE IF EXISTS {name}")
