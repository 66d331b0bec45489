"""A real PostgreSQL, a database of its own for each test, and the server's own view of sessions."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.util import greenlet_spawn

import lambdadb
import lambdadb.aio

PASSWORD = "canary-7f3a9c51"
_numbers = itertools.count(1)


@contextmanager
def _embedded() -> Iterator[str]:
    from lambdadb.lab.postgres import Postgres

    with Postgres(password=PASSWORD) as server:
        yield server.url()


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("LAMBDADB_POSTGRES_IMAGE", "pgvector/pgvector:pg17")
    with PostgresContainer(
        image, username="postgres", password=PASSWORD, dbname="postgres"
    ) as container:
        yield container.get_connection_url(driver="psycopg")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[URL]:
    """The URL of the server's maintenance database; a missing server fails the test."""
    kind = {"embedded": _embedded, "container": _container}[request.config.getoption("--postgres")]
    with kind() as url:
        yield make_url(url)


@pytest.fixture(scope="session")
def admin(server: URL) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the tested ones, that sees and ends the others' sessions."""
    dsn = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(server: URL, admin: psycopg.Connection[Any]) -> Iterator[URL]:
    """A fresh database with pgvector."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name}")
    url = server.set(database=name)
    with psycopg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE)")
    yield url
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def shared_database(server: URL, admin: psycopg.Connection[Any]) -> Iterator[URL]:
    """One database for all tests of a file that need no fresh one: making one takes a while."""
    name = f"shared_{os.getpid()}_{next(_numbers)}"
    admin.execute(f"CREATE DATABASE {name}")
    yield server.set(database=name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Sessions:
    """The sessions of one database, as the server sees them."""

    def __init__(self, admin: psycopg.Connection[Any], database: str, way: float) -> None:
        self._admin = admin
        self._way = way
        self._database = database

    def __call__(self) -> list[tuple[int, str, str]]:
        """pid, application_name and state of each."""
        return self._admin.execute(
            "SELECT pid, application_name, state FROM pg_stat_activity WHERE datname = %s",
            [self._database],
        ).fetchall()

    def become(self, count: int, seconds: float = 10.0) -> list[tuple[int, str, str]]:
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


@pytest.fixture
def sessions(request: pytest.FixtureRequest, admin: psycopg.Connection[Any], database: URL) -> Sessions:
    # A container's network hands on the end of a connection after the server has forgotten it.
    way = 0.05 if request.config.getoption("--postgres") == "container" else 0.0
    return Sessions(admin, str(database.database), way)


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
