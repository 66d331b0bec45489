"""A database, a cluster that pauses, and functions of frameworks in real execution environments."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy
from packaging.version import Version
from sqlalchemy import make_url

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment
from lambdadb.lab.postgres import Postgres

from .table import EXAMPLES, Table

FUNCTION = "orders"


SQLALCHEMY_20 = pytest.mark.skipif(
    Version(sqlalchemy.__version__) >= Version("2.1"),
    reason="OpenTelemetry's instrumentation of SQLAlchemy refuses SQLAlchemy 2.1",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write", action="store_true", help="renew the table of docs/frameworks.md")


class Shop:
    """A cluster with the examples' tables, and the functions that use it."""

    def __init__(self, server: Postgres, cluster: Cluster, functions: contextlib.ExitStack) -> None:
        self._server = server
        self._functions = functions
        self.cluster = cluster

    def url(self, *, plugin: bool = False) -> str:
        """The cluster's URL; with the name of lambdadb's plugin, for who calls SQLAlchemy itself."""
        url = make_url(self.cluster.url())
        url = url.update_query_dict({"plugin": "lambdadb"}) if plugin else url
        return url.render_as_string(hide_password=False)

    def function(self, handler: str, timeout: float = 30.0, **variables: str) -> Environment:
        """An environment of a function in examples/frameworks. Frozen between its invocations."""
        function = self._functions.enter_context(
            Environment(
                handler,
                function_name=FUNCTION,
                timeout=timeout,
                environment={"DATABASE_URL": self.url(), **variables},
                path=[EXAMPLES / "frameworks", EXAMPLES],
            )
        )
        function.start()  # whose imports may take longer than Lambda's ten seconds on a busy machine
        return function

    def execute(self, query: str) -> list[tuple[object, ...]]:
        """Run a statement on the server itself, beside the cluster."""
        dsn = self._server.url().replace("+psycopg", "")
        with psycopg.connect(dsn, autocommit=True, application_name="test") as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def settle(self, wanted: int = 1) -> int:
        """
        Return how many sessions the server has. All of them have the function's name.

        A server ends sessions a moment later, so it waits for the wanted number, for 30 s at most.
        """
        ends = time.monotonic() + 30.0
        while len(names := self._sessions()) != wanted and time.monotonic() < ends:
            time.sleep(0.02)
        assert set(names) <= {FUNCTION}
        return len(names)

    def _sessions(self) -> list[str]:
        """The names of all sessions, less the test's own."""
        names = self.execute(
            "SELECT application_name FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND application_name <> 'test'"
        )
        return [str(name) for (name,) in names]

    def end_sessions(self) -> None:
        """End every session, as the server does with idle ones, and wait until its client can see it."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        ends = time.monotonic() + 30.0
        while self.cluster.sessions() and time.monotonic() < ends:
            time.sleep(0.02)


@pytest.fixture
def open_shop() -> Iterator[Callable[[float], Shop]]:
    """Make a cluster that is paused, and takes so many seconds to wake up."""
    with contextlib.ExitStack() as stack:

        def make(resume: float) -> Shop:
            server = stack.enter_context(Postgres())
            with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
                connection.execute((EXAMPLES / "schema.sql").read_bytes())
            cluster = Cluster(server, auto_pause=600.0, resume=resume, paused=True)
            stack.enter_context(cluster)
            return Shop(server, cluster, stack.enter_context(contextlib.ExitStack()))

        yield make


@pytest.fixture(scope="session")
def table() -> Table:
    """What the tests have seen of each framework."""
    return Table()
