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
# Every fault in a long run; in a short one that which shows most.
FAULTS_SWEPT = [
    fault if fault.name == "answer dropped" else pytest.param(fault, marks=pytest.mark.sweep)
    for fault in FAULTS
]


@pytest.fixture(scope="module")
def database():
    """The API, and a connection of its own that sees the rows."""
    with Postgres(settings={"fsync": "off"}) as server, DataApi(server) as api:
        dsn = server.url().replace("+psycopg", "")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE unit (name text)")
            admin.execute(
                "CREATE FUNCTION add_row() RETURNS text LANGUAGE sql"
                " AS $$ INSERT INTO unit VALUES ('new') RETURNING name $$"
            )
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


def run(engine, *statements):
    """A transaction of these statements."""
    with engine.begin() as connection:
        for one in statements:
            connection.execute(text(one))


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
def test_a_plain_commit_without_an_answer_is_in_doubt(database, api, engine, fault):
    """Without `run_transaction` nothing is sent again, and the error says that nobody knows."""
    api.fail(fault, after=2)
    before = len(api.calls)
    with pytest.raises(lambdadb.CommitInDoubt) as raised, engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
    assert not raised.value.safe_to_repeat
    assert api.calls[before:].count("CommitTransaction") == 1
    assert names(database) == ["a"] * fault.effect


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_write_in_autocommit_is_sent_once(database, api, engine, fault):
    """Its error says that nobody knows whether it was carried out."""
    api.fail(fault)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(lambdadb.CommitInDoubt):
        connection.execute(INSERT, {"name": "a"})
    assert names(database) == ["a"] * fault.effect


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT add_row()"])
def test_a_read_in_autocommit_is_sent_once_too(database, api, engine, sql):
    """The text does not show whether a function in it writes."""
    api.fail(Fault(effect=True))
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection, pytest.raises(exc.OperationalError, match="not known"):
        connection.execute(text(sql))
    assert len(names(database)) == ("add_row" in sql)


@pytest.mark.parametrize("fault", FAULTS_SWEPT, ids=str)
@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT add_row()", "INSERT INTO unit VALUES ('new')"])
def test_the_first_statement_is_repeated_in_a_new_transaction(database, api, engine, fault, sql):
    """The first transaction is rolled back, so that whatever the statement did there is undone."""
    api.fail(fault, after=1)
    before = len(api.calls)
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        connection.execute(text(sql))
        connection.execute(INSERT, {"name": "a"})
        connection.commit()
    again = ["BeginTransaction", "Execute", "RollbackTransaction"]
    assert api.calls[before:][:4] == [*again, "BeginTransaction"]
    assert names(database) == ["a"] + ["new"] * (sql != "SELECT 1")


@pytest.mark.parametrize("fault", FAULTS_SWEPT, ids=str)
def test_a_read_before_the_first_write_is_repeated_alone(database, api, engine, fault):
    """In the same transaction, once the server has said that nothing was written there."""
    before = len(api.calls)
    api.fail(fault, after=2)
    with engine.begin() as connection:
        for _ in range(2):
            assert connection.scalar(text("SELECT count(*) FROM unit")) == 0
        connection.execute(INSERT, {"name": "a"})
    assert api.calls[before:] == ["BeginTransaction", *["Execute"] * 5, "CommitTransaction"]
    assert names(database) == ["a"]


@pytest.mark.parametrize("first", ["SELECT 1", "INSERT INTO unit VALUES ('b')"])
@pytest.mark.parametrize("sql", ["SELECT add_row()", "INSERT INTO unit VALUES ('a')"])
def test_a_write_that_is_not_the_first_statement_ends_its_transaction(database, api, engine, first, sql):
    """It is not sent again, and nothing of the transaction is stored."""
    api.fail(Fault(effect=True), after=2)
    with pytest.raises(exc.OperationalError):
        run(engine, first, sql)
    assert names(database) == []


def test_a_read_after_a_write_ends_its_transaction(database, api, engine):
    """The server cannot tell any more whether the read has written something, too."""
    api.fail(Fault(effect=True), after=2)
    with pytest.raises(exc.OperationalError):
        run(engine, "INSERT INTO unit VALUES ('a')", "SELECT 1")
    assert names(database) == []


def test_what_fails_twice_is_not_repeated_again(database, api, engine):
    """Neither in a new transaction nor in the open one."""
    for number in (1, 2):
        before = len(api.calls)
        api.fail(Fault(effect=True), after=number)
        api.fail(Fault(effect=True), after=4)
        with pytest.raises(exc.OperationalError):
            run(engine, *["SELECT 1"] * number)
        assert len(api.calls) <= before + 6
        api.repair()


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
