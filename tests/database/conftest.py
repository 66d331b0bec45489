"""A real PostgreSQL, a database of its own for each test, and the server's own view of sessions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL, make_url
from sqlalchemy.util import greenlet_spawn

import lambdadb
import lambdadb.aio
from lambdadb.lab.aurora import Server
from lambdadb.lab.postgres import Postgres
from lambdadb.testing import Database, open_postgres
from lambdadb.testing.databases import IMAGE, Admin, connect
from lambdadb.testing.sessions import Sessions
from pytest_lambdadb import setting

from .proxies import Clients, Proxy, open_proxy
from .proxy_differences import find_difference

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
def proxy(pytestconfig: pytest.Config, postgres_server: Server) -> Iterator[Proxy | None]:
    """The proxy before the server, if the tests run behind one."""
    kind = pytestconfig.getoption("--proxy")
    if kind is None:
        yield None
        return
    assert isinstance(postgres_server, Postgres), "--proxy needs the embedded PostgreSQL"
    with open_proxy(kind, postgres_server) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def server(proxy: Proxy | None, direct: URL) -> URL:
    """The URL of the server as the tests reach it."""
    return direct if proxy is None else make_url(proxy.url)


@pytest.fixture(scope="session")
def admin(postgres_server: Server) -> Iterator[Admin]:
    """A session beside the tested ones, that sees and ends the others'."""
    with closing(Admin(postgres_server.url())) as admin:
        yield admin


@pytest.fixture
def sessions(proxy: Proxy | None, postgres: Database) -> Sessions:
    """The sessions of the test's database; behind a proxy its clients."""
    return postgres.sessions if proxy is None else Clients(proxy, postgres.name, postgres.sessions)


@pytest.fixture
def database(server: URL, postgres: Database, proxy: Proxy | None) -> Iterator[URL]:
    """A fresh database with pgvector and an empty table `item`."""
    yield server.set(database=postgres.name)
    if proxy is not None:
        proxy.end_clients(postgres.name)


@pytest.fixture
def engine(database: URL) -> Iterator[sqlalchemy.Engine]:
    """A synchronous engine of lambdadb for the test's database."""
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_database(server: URL, admin: Admin) -> Iterator[URL]:
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
    """Behind a proxy, expect the tests to fail that see a difference."""
    for item in items:
        difference = find_difference(config.getoption("--proxy"), item.path.name, item.name)
        if difference is not None:
            mark = pytest.mark.xfail(reason=difference.reason, strict=True, run=difference.runs)
            item.add_marker(mark)
