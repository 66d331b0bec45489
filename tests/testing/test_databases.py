"""Databases for tests: each one is as good as new, whatever the test before has done to its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Server
from lambdadb.testing import Databases, open_postgres
from lambdadb.testing.databases import connect

TABLES = """
    CREATE TABLE author (id serial PRIMARY KEY, name text);
    CREATE TABLE book (id serial PRIMARY KEY, author int REFERENCES author, state text DEFAULT 'new');
    CREATE SEQUENCE number;
    CREATE FUNCTION answer() RETURNS int RETURN 42;
"""


def create(statements: str) -> Callable[[str], None]:
    def run(url: str) -> None:
        with connect(url) as connection:
            connection.execute(statements.encode())

    return run


@pytest.fixture(scope="module")
def databases(postgres_server: Server) -> Iterator[Databases]:
    databases = Databases(postgres_server, create(TABLES))
    yield databases
    databases.close()


LONG = pytest.mark.sweep


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO author (name) VALUES ('a'); INSERT INTO book (author) SELECT id FROM author",
        "SELECT nextval('number')",
        "ALTER TABLE book ADD COLUMN price int",
        pytest.param("ALTER TABLE book ALTER COLUMN state SET DEFAULT 'old'", marks=LONG),
        pytest.param("ALTER TABLE book DROP CONSTRAINT book_author_fkey", marks=LONG),
        pytest.param("CREATE OR REPLACE FUNCTION answer() RETURNS int RETURN 43", marks=LONG),
        pytest.param("CREATE INDEX ON book (state)", marks=LONG),
        pytest.param("DROP TABLE book", marks=LONG),
    ],
)
def test_a_database_is_as_new_after_a_test_that_changed_it(databases, change):
    """No row, no value of a sequence and no change of an object reaches the next test."""
    one = databases.take()
    one.query(change)
    databases.give_back(one)
    other = databases.take()
    other.query("INSERT INTO author (name) VALUES ('b')")
    assert other.query("INSERT INTO book (author) VALUES (1) RETURNING id, state") == [(1, "new")]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        other.query("INSERT INTO book (author) VALUES (7)")
    assert other.query("SELECT answer(), nextval('number')") == [(42, 1)]
    assert "price" not in {name for (name,) in other.query("SELECT attname FROM pg_attribute")}
    databases.give_back(other)


def test_a_database_that_has_only_rows_is_used_again(databases):
    """It is emptied, which is ten times as fast as another copy."""
    one = databases.take()
    one.query("INSERT INTO author (name) VALUES ('a')")
    databases.give_back(one)
    assert databases.take().name == one.name
    databases.give_back(one)


def test_rows_of_the_template_are_in_each_database(postgres_server):
    """Then each test has a copy of its own."""
    databases = Databases(postgres_server, create(f"{TABLES}; INSERT INTO author (name) VALUES ('a')"))
    one = databases.take()
    one.query("DELETE FROM author")
    databases.give_back(one)
    assert databases.take().query("TABLE author") == [(1, "a")]
    databases.close()
    left = "SELECT datname FROM pg_database WHERE datname LIKE %s"
    with connect(postgres_server.url()) as admin:
        assert admin.execute(left, [f"{one.name.rsplit('_', 1)[0]}%"]).fetchall() == []


def test_sessions_of_a_test_end_with_it(databases):
    """Also those that it has forgotten."""
    one = databases.take()
    forgotten = psycopg.connect(one.url.replace("+psycopg", ""), application_name="forgotten")
    assert [session.application_name for session in one.sessions()] == ["forgotten"]
    databases.give_back(one)
    with pytest.raises(psycopg.OperationalError):
        forgotten.execute("SELECT 1")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("docker", "embedded, container, or the URL"),
        ("mysql://app@db.example/orders", "names no PostgreSQL"),
        ("postgresql://app@db.example", "names no PostgreSQL, host and database"),
        ("postgresql://app:canary-0@:x/", "cannot be read"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(kind, words):
    """The error says what can be, and shows no password."""
    with pytest.raises(LabError, match=words), open_postgres(kind):
        pass


def test_a_running_server_may_be_on_another_machine():
    """A service of a CI job has a name of its own. Its settings are kept."""
    with open_postgres("postgresql://app:pw@postgres/postgres?sslmode=disable") as server:
        place = "app:pw@postgres:5432"
        assert server.url("orders") == f"postgresql+psycopg://{place}/orders?sslmode=disable"
        assert (server.host, server.port) == ("postgres", 5432)
        through = server.url("orders", host="127.0.0.1", port=7)
        assert through == "postgresql+psycopg://app:pw@127.0.0.1:7/orders?sslmode=disable"
