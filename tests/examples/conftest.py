"""What the example functions run against: a PostgreSQL, and its users' secrets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lambdadb.lab.postgres import Postgres

from ..lab.aws import SecretServer, secret_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server whose user `app` may log in with a password."""
    with Postgres() as server:
        url = server.url("postgres").replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'canary-app'")
            admin.execute("CREATE ROLE rds_iam")  # as on RDS
        yield server


class Database:
    """A new database. Each query has a connection of its own: a cluster that is started paused stops
    the server first, and with it every session."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.name = f"example_{uuid.uuid4().hex}"
        self.url = server.url(self.name)
        self.query(f"CREATE DATABASE {self.name}", database="postgres")

    def query(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        """Run statements in one session, and return the rows of the last one."""
        url = self.server.url(database or self.name).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A database for one test."""
    database = Database(postgres)
    yield database
    database.query(f"DROP DATABASE {database.name} WITH (FORCE)", database="postgres")


@pytest.fixture(scope="session")
def secrets() -> Iterator[SecretServer]:
    """Secrets Manager, as moto's server plays it."""
    with secret_server() as server:
        yield server
