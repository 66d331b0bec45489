"""Every call of a unit of work fails in every way, over the Data API: no row is lost or doubled."""

from __future__ import annotations

from contextlib import nullcontext as does_not_raise

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc, text
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb.lab.data_api import DataApi, Fault
from lambdadb.lab.data_api.unit_sweep import CALLS, FAULTS
from lambdadb.lab.postgres import Postgres

INSERT = text("INSERT INTO unit (name) VALUES (:name)")


@pytest.fixture(scope="module")
def database():
    """The API, and a connection of its own that sees the rows."""
    with Postgres(settings={"fsync": "off"}) as server, DataApi(server) as api:
        dsn = server.url().replace("+psycopg", "")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE unit (name text)")
            yield api, admin


@pytest.fixture
def api(database, monkeypatch):
    """The API, with an empty table behind it."""
    api, admin = database
    api.repair()
    admin.execute("TRUNCATE unit")
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)
    return api


@pytest.fixture
def engine(api):
    engine = lambdadb.create_engine(api.url())
    with engine.connect():
        pass
    yield engine
    engine.dispose()


def names(database):
    return [name for (name,) in database[1].execute("SELECT name FROM unit ORDER BY name").fetchall()]


def work(connection):
    """Two rows, so that half of a unit would be seen."""
    for name in ("a", "b"):
        connection.execute(INSERT, {"name": name})


# Every case in one run takes 5 s: unmarked are those of the last call, COMMIT.
@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize(
    "number",
    [*[pytest.param(n, marks=pytest.mark.sweep) for n in range(len(CALLS) - 1)], len(CALLS) - 1],
    ids=CALLS,
)
def test_a_unit_of_work_is_stored_once(database, api, engine, number, fault):
    """`run_transaction` returns, and each row is there once, whichever call fails in whichever way."""
    open_before = len(api.transactions)
    api.fail(fault, after=number)
    lambdadb.run_transaction(engine, work)
    assert names(database) == ["a", "b"]
    # One that was begun without an answer has nothing in it. It ends by itself.
    assert len(api.transactions) <= open_before + (number == 0)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_plain_transaction_is_never_doubled(database, api, engine, fault):
    """Without `run_transaction` a COMMIT without an answer is an error, and nothing is sent again."""
    api.fail(fault, after=2)
    before = len(api.calls)
    with pytest.raises(exc.OperationalError), engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
    assert api.calls[before:].count("CommitTransaction") == 1
    assert names(database) == ["a"] * fault.effect


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_write_in_autocommit_is_sent_once(database, api, engine, fault):
    """Its error says that nobody knows whether it was carried out."""
    api.fail(fault)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(exc.OperationalError, match="not known"):
        connection.execute(INSERT, {"name": "a"})
    assert names(database) == ["a"] * fault.effect


def test_a_server_that_restarts_leaves_doubt_or_the_key_decides(monkeypatch):
    """After a restart its answer proves nothing; the row of the key does."""
    with Postgres(settings={"fsync": "off"}) as server, DataApi(server) as api:
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        engine = lambdadb.create_engine(api.url())
        keys = sa.Table("keys", sa.MetaData(), sa.Column("key", sa.String, primary_key=True))
        with engine.begin() as connection:
            keys.metadata.create_all(connection)
            connection.execute(text("CREATE TABLE unit (name text)"))

        @sa.event.listens_for(engine.pool, "invalidate")
        def restart(*_):
            server.stop("fast")
            server.start()

        for key, raises in ((None, pytest.raises(lambdadb.CommitInDoubt)), ("k", does_not_raise())):
            api.fail(Fault(effect=True), after=3 if key is None else 4)
            with raises:
                given = None if key is None else (keys.c.key, key)
                lambdadb.run_transaction(engine, add_one, idempotency_key=given)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM unit")) == 2
        engine.dispose()


def add_one(connection):
    connection.execute(INSERT, {"name": "a"})


def test_the_orm_stores_once_too(database, api, engine):
    """A session's flush and commit are the same calls."""
    metadata = sa.MetaData()
    table = sa.Table("unit", metadata, sa.Column("name", sa.String))
    for fault in FAULTS:
        api.fail(fault, after=3)
        maker = sessionmaker(engine)
        lambdadb.run_transaction(maker, lambda session: session.execute(table.insert().values(name="o")))
    assert names(database) == ["o"] * len(FAULTS)
