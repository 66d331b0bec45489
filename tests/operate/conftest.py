"""A real PostgreSQL for operators, and a database in it for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import psycopg
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws
from sqlalchemy import make_url

from lambdadb.cli.group import lambdadb as group
from lambdadb.lab.postgres import Postgres
from lambdadb.operate.login import connected, make_engine
from lambdadb.operate.session_view import read_session_view
from lambdadb.operate.sessions import SessionView

from ..waiting import wait_until

PASSWORD = "canary-operate-5d1c"
LIMIT = 60
OTHERS = """
    SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
Connect = Callable[..., "psycopg.Connection[Any]"]
REGION = "eu-west-1"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A server with few connections, and TLS and roles as initdb leaves them."""
    with Postgres(password=PASSWORD, settings={"max_connections": str(LIMIT)}) as server:
        yield server


@pytest.fixture(scope="session")
def operator(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """The session of `admin`."""
    with open_session(server, "admin") as session:
        yield session


@pytest.fixture
def admin(operator: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """The operator's own session, in autocommit. Those of earlier tests have left the server's view."""
    wait_until(lambda: not operator.execute(OTHERS).fetchall())
    return operator


@pytest.fixture
def connect(server: Postgres, admin: psycopg.Connection[Any]) -> Iterator[Connect]:
    """Open sessions of any user, which end with the test."""
    with ExitStack() as stack:

        def connect(name: str = "", **place: str) -> psycopg.Connection[Any]:
            session = open_session(server, name, **place)
            stack.callback(session.close)
            return session

        yield connect


def open_session(
    server: Postgres, name: str, *, user: str = "postgres", database: str = "postgres"
) -> psycopg.Connection[Any]:
    url = make_url(server.url(database)).set(drivername="postgresql", username=user)
    return psycopg.connect(
        url.render_as_string(hide_password=False), application_name=name, autocommit=True
    )


@pytest.fixture
def role(admin: psycopg.Connection[Any]) -> Iterator[str]:
    """An ordinary role that can log in; gone after the test, with all that it owns."""
    name = f"app_{next(_numbers)}"
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
    admin.execute(f"DROP OWNED BY {name}")
    admin.execute(f"DROP ROLE {name}")


@pytest.fixture
def view(server: Postgres) -> Callable[..., SessionView]:
    """What `lambdadb sessions` reads, as any user."""

    def read(user: str = "postgres") -> SessionView:
        url = make_url(server.url()).set(username=user).render_as_string(hide_password=False)
        with connected(make_engine(url, tag="look", timeout=10)) as connection:
            return read_session_view(connection, "server")

    return read


@pytest.fixture
def lambdadb() -> Callable[..., Result]:
    """Run the command line in this process."""
    return lambda *arguments: CliRunner().invoke(group, list(arguments))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 session on moto, with a cluster `orders` of one instance that pauses."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        session = boto3.Session(region_name=REGION)
        rds = session.client("rds")
        rds.create_db_cluster(
            DBClusterIdentifier="orders",
            Engine="aurora-postgresql",
            EngineVersion="16.6",
            MasterUsername="ops",
            MasterUserPassword="canary-master",
            ServerlessV2ScalingConfiguration={
                "MinCapacity": 0,
                "MaxCapacity": 1,
                "SecondsUntilAutoPause": 300,
            },
        )
        rds.create_db_instance(
            DBInstanceIdentifier="orders-1",
            DBClusterIdentifier="orders",
            Engine="aurora-postgresql",
            DBInstanceClass="db.serverless",
        )
        yield session
