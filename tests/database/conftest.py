"""A real PostgreSQL, a database of its own for each test, and the server's own view of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import URL, make_url
from sqlalchemy.util import greenlet_spawn

import lambdadb
import lambdadb.aio

from .proxy_differences import find_difference
from .servers import SERVERS, Server, Sessions

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of all tests; a missing one fails the test."""
    with SERVERS[request.config.getoption("--postgres")]() as server:
        yield server


@pytest.fixture(scope="session")
def server(running: Server) -> URL:
    """The URL of the server's maintenance database, as the tests reach it."""
    return make_url(running.url)


@pytest.fixture(scope="session")
def direct(running: Server) -> URL:
    """The URL of the server itself."""
    return make_url(running.direct)


@pytest.fixture(scope="session")
def admin(direct: URL) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the tested ones, that sees and ends the others' sessions."""
    dsn = direct.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


# What is in a database, less its rows: objects that nobody but initdb and the fixture has made.
_FINGERPRINT = """
    SELECT array_agg(found ORDER BY found) FROM (
        SELECT concat_ws(' ', 'class', oid, relname, relkind, relacl, relrowsecurity)
        FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
        UNION ALL SELECT concat_ws(' ', 'proc', oid, proname) FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'type', oid, typname) FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'namespace', oid, nspname, nspacl) FROM pg_namespace
        UNION ALL SELECT concat_ws(' ', 'operator', oid) FROM pg_operator WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'rewrite', oid) FROM pg_rewrite WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'trigger', oid) FROM pg_trigger WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'extension', extname) FROM pg_extension
        UNION ALL SELECT concat_ws(' ', 'policy', oid) FROM pg_policy
        UNION ALL SELECT concat_ws(' ', 'setting', setrole, setconfig) FROM pg_db_role_setting
        UNION ALL SELECT concat_ws(' ', 'database', datallowconn, datconnlimit, datacl)
            FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT concat_ws(' ', 'large object', oid) FROM pg_largeobject_metadata
        UNION ALL SELECT concat_ws(' ', 'prepared', gid) FROM pg_prepared_xacts
    ) AS objects (found)
"""


class Databases:
    """
    A database for each test: the one of the test before, if it left nothing but rows of `item`.

    Making a database costs a tenth of a second and more, and dropping it a checkpoint.
    """

    def __init__(self, server: Server, admin: psycopg.Connection[Any]) -> None:
        self._server = server
        self._admin = admin
        self._clean: tuple[str, object] | None = None

    def take(self) -> str:
        """The name of one that is as good as new."""
        if self._clean is not None:
            return self._clean[0]
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self._admin.execute(f"CREATE DATABASE {name}")
        with self._connect(name) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE)")
            self._clean = (name, connection.execute(_FINGERPRINT).fetchone())
        return name

    def give_back(self, name: str) -> None:
        """End its sessions; empty it or, if it was changed otherwise, drop it."""
        self._server.make_sessions(self._admin, name).terminate()
        assert self._clean is not None
        # A test may have dropped it, or have left it so that nobody can connect.
        with contextlib.suppress(psycopg.Error), self._connect(name) as connection:
            if connection.execute(_FINGERPRINT).fetchone() == self._clean[1]:
                connection.execute("TRUNCATE item RESTART IDENTITY")
                return
        self._clean = None
        self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        url = make_url(self._server.direct).set(database=name, drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


@pytest.fixture(scope="session")
def databases(running: Server, admin: psycopg.Connection[Any]) -> Databases:
    """The databases of the tests, one after the other."""
    return Databases(running, admin)


@pytest.fixture
def database(server: URL, databases: Databases) -> Iterator[URL]:
    """A fresh database with pgvector and an empty table `item`."""
    name = databases.take()
    yield server.set(database=name)
    databases.give_back(name)


@pytest.fixture
def engine(database: URL) -> Iterator[sqlalchemy.Engine]:
    """A synchronous engine of lambdadb for the test's database."""
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_database(server: URL, admin: psycopg.Connection[Any]) -> Iterator[URL]:
    """One database for all tests of a file that need no fresh one: making one takes a while."""
    name = f"shared_{os.getpid()}_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name}")
    yield server.set(database=name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sessions(running: Server, admin: psycopg.Connection[Any], database: URL) -> Sessions:
    """The sessions of the test's database."""
    return running.make_sessions(admin, str(database.database))


class Mode:
    """
    The mode of an engine: synchronous or asynchronous. Each test runs in both.

    A test is written once, in synchronous code. With an asynchronous engine its steps run in the
    greenlet in which SQLAlchemy itself runs its synchronous core.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def create_engine(self, *arguments: Any, **keywords: Any) -> Any:
        """Make an engine. In asynchronous mode it is the `sync_engine` of an `AsyncEngine`."""
        if not self.asynchronous:
            return lambdadb.create_engine(*arguments, **keywords)
        engine = lambdadb.aio.create_async_engine(*arguments, **keywords)
        engine.sync_engine.async_engine = engine  # keeps it alive, and findable
        return engine.sync_engine

    def run(self, function: Callable[[], Any]) -> Any:
        """Run the steps."""
        if not self.asynchronous:
            return function()
        return asyncio.run(greenlet_spawn(function))

    @contextmanager
    def invocation(self, engine: Any, context: object = None) -> Iterator[None]:
        """`with invocation(...)`, or the same of `async with`, inside the greenlet."""
        if not self.asynchronous:
            with lambdadb.invocation(engine, context):
                yield
            return
        from sqlalchemy.util import await_only

        around = lambdadb.invocation(engine.async_engine, context)
        await_only(around.__aenter__())
        try:
            yield
        finally:
            await_only(around.__aexit__(None, None, None))


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return Mode(asynchronous=request.param == "async")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Behind a proxy, expect the tests to fail that see a difference."""
    for item in items:
        difference = find_difference(config.getoption("--postgres"), item.path.name, item.name)
        if difference is not None:
            mark = pytest.mark.xfail(reason=difference.reason, strict=True, run=difference.runs)
            item.add_marker(mark)
