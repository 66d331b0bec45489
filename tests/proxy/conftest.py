"""A real PostgreSQL behind a real pgbouncer, which gives out its sessions for one transaction each."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.pgbouncer import PgBouncer, find_pgbouncer
from lambdadb.lab.postgres import Postgres

PASSWORD = "canary-5b1e7d20"


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Skips where pgbouncer is missing. `nox -s proxy` fails there."""
    try:
        find_pgbouncer()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def version() -> tuple[int, ...]:
    """The version of the installed pgbouncer."""
    text = subprocess.run([find_pgbouncer(), "--version"], capture_output=True, text=True, check=True)
    return tuple(int(number) for number in text.stdout.split()[1].split("."))


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The server behind it, with an empty table `item`."""
    with Postgres(password=PASSWORD) as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")
        yield server


@pytest.fixture
def admin(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the server itself."""
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("TRUNCATE item")
        yield admin


@pytest.fixture
def pgbouncer(installed: None, server: Postgres) -> Iterator[Callable[..., PgBouncer]]:
    """Starts one with the settings that a test needs."""
    with ExitStack() as stack:
        yield lambda **keywords: stack.enter_context(PgBouncer(server, **keywords))
