"""A real PostgreSQL, a database of its own for each test, and the server's own view of sessions."""

from __future__ import annotations

import asyncio
import uuid
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
from lambdadb.lab.aurora import Server
from lambdadb.lab.pgbouncer import PgBouncer
from lambdadb.lab.postgres import Postgres
from lambdadb.testing import Database, open_postgres
from lambdadb.testing.databases import IMAGE, connect
from pytest_lambdadb import setting

from .proxy_differences import PINGS, find_difference

PASSWORD = "canary-7f3a9c51"


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The plugin's server, with a password that no test may show."""
    kind = setting(pytestconfig, "lambdadb_postgres", "embedded")
    image = setting(pytestconfig, "lambdadb_postgres_image", IMAGE)
    with open_postgres(kind, image=image, password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_schema() -> Callable[[str], object]:
    """Each test's database has pgvector and an empty table `item`."""

    def create(url: str) -> None:
        with connect(url) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE)")

    return create


@pytest.fixture(scope="session")
def direct(postgres_server: Server) -> URL:
    """The URL of the server itself."""
    return make_url(postgres_server.url())


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, postgres_server: Server) -> Iterator[URL]:
    """The URL of the server as the tests reach it."""
    if not pytestconfig.getoption("--pgbouncer"):
        yield make_url(postgres_server.url())
        return
    assert isinstance(postgres_server, Postgres)
    # A session that ended with its database is replaced at once.
    with PgBouncer(postgres_server, settings={"server_login_retry": "0.1"}) as pgbouncer:
        yield make_url(pgbouncer.url())


@pytest.fixture(scope="session")
def admin(direct: URL) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the tested ones, that sees and ends the others' sessions."""
    dsn = direct.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(server: URL, postgres: Database) -> URL:
    """A fresh database with pgvector and an empty table `item`."""
    return server.set(database=postgres.name)


@pytest.fixture
def engine(database: URL) -> Iterator[sqlalchemy.Engine]:
    """A synchronous engine of lambdadb for the test's database."""
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_database(server: URL, admin: psycopg.Connection[Any]) -> Iterator[URL]:
    """One database for all tests of a file that need no fresh one: making one takes a while."""
    name = f"shared_{uuid.uuid4().hex}"
    admin.execute(f"CREATE DATABASE {name}")
    yield server.set(database=name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


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
    """Behind pgbouncer, expect the tests to fail that see a difference."""
    if not config.getoption("--pgbouncer"):
        return
    for item in items:
        if (reason := find_difference(item.nodeid)) is not None:
            # A test that interrupts a ping would interrupt another test: no ping is sent.
            runs = reason != PINGS
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False, run=runs))
