"""The experiment's table on a server that belongs to somebody."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.bench.config import OWN_TABLE
from lambdadb.lab.bench.table import definition, prepare
from lambdadb.lab.postgres import Postgres


@pytest.fixture
def owner(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A superuser in a new database, and a role `app` that may only log in."""
    admin = psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True)
    admin.execute("DROP DATABASE IF EXISTS shop")
    admin.execute("CREATE DATABASE shop")
    admin.execute("DROP ROLE IF EXISTS app")
    admin.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
    with psycopg.connect(url_of(postgres, "postgres"), autocommit=True) as connection:
        yield connection
    admin.execute("DROP DATABASE shop WITH (FORCE)")
    admin.execute("DROP ROLE app")
    admin.close()


def url_of(postgres: Postgres, user: str) -> str:
    url = postgres.url("shop").replace("+psycopg", "")
    return url if user == "postgres" else f"postgresql://app:app@{url.partition('@')[2]}"


def test_a_missing_extension_says_what_to_run(postgres: Postgres, owner: psycopg.Connection) -> None:
    """The statement and the database, not a type that does not exist."""
    with pytest.raises(LabError, match=r"shop has no extension vector.*CREATE EXTENSION vector"):
        prepare(url_of(postgres, "app"), OWN_TABLE, first_id=None)


def test_a_role_without_create(postgres: Postgres, owner: psycopg.Connection) -> None:
    """Where the table is missing it says what the owner has to run; that is enough, and is run once."""
    owner.execute("CREATE EXTENSION vector")
    with pytest.raises(LabError, match="permission denied") as caught:
        prepare(url_of(postgres, "app"), OWN_TABLE, first_id=None)
    advice = str(caught.value).partition("run there: ")[2]
    for statement in advice.split("; "):
        owner.execute(statement)
    versions = prepare(url_of(postgres, "app"), OWN_TABLE, first_id=None)
    assert versions.keys() == {"postgresql", "vector"}
    with psycopg.connect(url_of(postgres, "app")) as connection:
        insert = f"INSERT INTO {OWN_TABLE} (content) VALUES ('x') RETURNING id"
        assert connection.execute(insert).fetchone() == (1,)


def test_an_existing_table_is_left_as_it_is(postgres: Postgres, owner: psycopg.Connection) -> None:
    """Its rows stay, and its ids go on."""
    owner.execute("CREATE EXTENSION vector")
    for statement in definition(OWN_TABLE):
        owner.execute(statement)
    owner.execute(f"INSERT INTO {OWN_TABLE} (content) VALUES ('mine')")
    prepare(url_of(postgres, "postgres"), OWN_TABLE, first_id=None)
    assert owner.execute(f"SELECT id, content FROM {OWN_TABLE}").fetchall() == [(1, "mine")]
