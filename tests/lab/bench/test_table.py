"""The experiment's table on a server that belongs to somebody."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import lambdadb
from lambdadb.lab.bench.config import OWN_TABLES
from lambdadb.lab.bench.table import clean_up, definition, make_missing, problems
from lambdadb.lab.postgres import Postgres

TABLE = OWN_TABLES["hot"]


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


def url_of(postgres: Postgres, user: str, password: str = "app") -> str:
    url = postgres.url("shop").replace("+psycopg", "")
    return url if user == "postgres" else f"postgresql://{user}:{password}@{url.partition('@')[2]}"


def engine_of(url: str):
    return lambdadb.create_engine(url, policy=lambdadb.PerInvocation())


def names(findings) -> list[str]:
    return [finding.name for finding in findings]


def run_remedy(owner: psycopg.Connection, finding) -> None:
    for statement in finding.remedy.partition("run there: ")[2].split("; "):
        owner.execute(statement)


def test_every_problem_is_found_and_each_remedy_works(
    postgres: Postgres, owner: psycopg.Connection
) -> None:
    """A missing extension and a missing table at once; after the statements that they name, none."""
    engine = engine_of(url_of(postgres, "app"))
    found = problems(engine, TABLE, clean_up=True)
    assert names(found) == ["extension", "table"]
    assert "the database shop has no extension vector" in str(found[0])
    assert "the role app may not make one" in str(found[1])
    for finding in found:
        run_remedy(owner, finding)
    assert problems(engine, TABLE, create=False, clean_up=True) == []
    versions, made = make_missing(engine, TABLE)
    assert (versions.keys(), made) == ({"postgresql", "vector"}, False)
    with psycopg.connect(url_of(postgres, "app")) as connection:
        insert = f"INSERT INTO {TABLE} (content) VALUES ('x') RETURNING id"
        assert connection.execute(insert).fetchone() == (1,)


def test_missing_rights_on_an_existing_table(postgres: Postgres, owner: psycopg.Connection) -> None:
    """What the role lacks is named, the sequence of the ids too, and granted by the remedy."""
    owner.execute("CREATE EXTENSION vector")
    for statement in definition(TABLE):
        owner.execute(statement)
    owner.execute(f"GRANT SELECT ON {TABLE} TO app")
    engine = engine_of(url_of(postgres, "app"))
    (finding,) = problems(engine, TABLE)
    assert "INSERT, USAGE of its sequence" in finding.problem
    run_remedy(owner, finding)
    assert problems(engine, TABLE) == []
    assert names(problems(engine, TABLE, clean_up=True)) == ["rights"]


def test_no_table_and_none_to_be_made(postgres: Postgres, owner: psycopg.Connection) -> None:
    """With --no-create a missing table is a problem for its owner, too."""
    owner.execute("CREATE EXTENSION vector")
    (finding,) = problems(engine_of(url_of(postgres, "postgres")), TABLE, create=False)
    assert "none is to be made" in str(finding)


@pytest.mark.parametrize("wrong", ["login", "database", "port"])
def test_a_connect_that_cannot_work(postgres: Postgres, owner: psycopg.Connection, wrong: str) -> None:
    """A wrong login, database or port is one finding, without the password."""
    url = url_of(postgres, "app", "wr0ng-word")
    if wrong == "database":
        url = url_of(postgres, "app").replace("/shop", "/nowhere")
    if wrong == "port":
        url = url.replace(f":{postgres.port}/", ":9/")
    (finding,) = problems(engine_of(url), TABLE)
    assert finding.name == {"login": "login", "database": "address", "port": "network"}[wrong]
    assert "wr0ng-word" not in str(finding)


def test_clean_up_leaves_what_was_there(postgres: Postgres, owner: psycopg.Connection) -> None:
    """Of a table that was there, this experiment's rows go; one that the run made is dropped."""
    owner.execute("CREATE EXTENSION vector")
    engine = engine_of(url_of(postgres, "postgres"))
    _, made = make_missing(engine, TABLE)
    assert made
    owner.execute(f"INSERT INTO {TABLE} (content) VALUES ('mine'), ('run 1'), ('run 1')")
    assert make_missing(engine, TABLE)[1] is False
    assert clean_up(engine, TABLE, "run 1", made=False).startswith("2 rows of run 1 were deleted")
    assert owner.execute(f"SELECT id, content FROM {TABLE}").fetchall() == [(1, "mine")]
    assert "was dropped" in clean_up(engine, TABLE, "run 1", made=True)
    assert owner.execute(f"SELECT to_regclass('{TABLE}')").fetchone() == (None,)
