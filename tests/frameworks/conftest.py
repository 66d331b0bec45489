"""Functions of frameworks in execution environments, against a cluster that begins paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy
from packaging.version import Version
from sqlalchemy import make_url

from lambdadb.testing import AuroraCluster, Invoke, LambdaContext, Sessions

from .table import EXAMPLES, Table

FUNCTION = "orders"
SQLALCHEMY_20 = pytest.mark.skipif(
    Version(sqlalchemy.__version__) >= Version("2.1"),
    reason="OpenTelemetry's instrumentation of SQLAlchemy refuses SQLAlchemy 2.1",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write", action="store_true", help="renew the table of docs/frameworks.md")


@pytest.fixture(scope="session")
def postgres_schema() -> Callable[[str], None]:
    """Make the examples' tables in an empty database."""

    def create(url: str) -> None:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute((EXAMPLES / "schema.sql").read_bytes())

    return create


@pytest.fixture(scope="session")
def table() -> Table:
    """What the tests have seen of each framework."""
    return Table()


class Shop:
    """A cluster with the examples' tables, and the functions that use it."""

    def __init__(
        self,
        cluster: AuroraCluster,
        sessions: Sessions,
        invoke: Invoke,
        context: LambdaContext,
        set_variables: pytest.MonkeyPatch,
    ) -> None:
        self._cluster = cluster
        self._sessions = sessions
        self._invoke = invoke
        self._context = context
        self._set_variables = set_variables
        self.url = cluster.url
        context.seconds_left = 120.0  # the imports of some frameworks take long on a busy machine

    @property
    def plugin_url(self) -> str:
        """The cluster's URL with the name of lambdadb's plugin, for who calls SQLAlchemy itself."""
        url = make_url(self.url).update_query_dict({"plugin": "lambdadb"})
        return url.render_as_string(hide_password=False)

    def set(self, **variables: str) -> None:
        """Set variables of the functions that are invoked after it."""
        for name, value in variables.items():
            self._set_variables.setenv(name, value)

    def invoke(self, handler: str, event: object) -> Any:
        """Invoke a function of examples/frameworks, or of examples, and return its answer."""
        return self._invoke(handler, event)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the server itself, beside the cluster."""
        return self._cluster.database.query(statement)

    def settle(self, wanted: int = 1) -> int:
        """Wait until that many sessions are open, all with the function's name. Return the number."""
        names = [session.application_name for session in self._sessions.become(wanted, 30.0)]
        assert set(names) <= {FUNCTION}
        return len(names)

    def end_sessions(self) -> None:
        """End every session, as the server does with idle ones, and wait until its client can see it."""
        self._sessions.terminate()
        ends = time.monotonic() + 30.0
        while self._cluster.emulated.sessions() and time.monotonic() < ends:
            time.sleep(0.02)

    def sleep(self, *, seconds_left: float) -> None:
        """Let the cluster pause, and take longer to wake up than an invocation may from now on."""
        self.end_sessions()
        self._cluster.pause()
        self._cluster.resume(seconds=60.0)
        self._context.seconds_left = seconds_left


@pytest.fixture
def shop(
    aurora_cluster: AuroraCluster,
    sessions: Sessions,
    invoke: Invoke,
    lambda_context: LambdaContext,
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:
    """A shop whose cluster is paused."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES / "frameworks")
    return Shop(aurora_cluster, sessions, invoke, lambda_context, monkeypatch)
