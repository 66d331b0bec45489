"""`mysql+data_api` over the emulated Data API, in front of a real MariaDB; skipped without it."""

from __future__ import annotations

import asyncio
import datetime
from contextlib import nullcontext as does_not_raise
from decimal import Decimal
from uuid import UUID

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import exc, text
from sqlalchemy.dialects import mysql

import lambdadb
import lambdadb.aio
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.data_api import DataApi, Fault
from lambdadb.lab.data_api.unit_sweep import FAULTS
from lambdadb.lab.mariadb import MariaDB

INSERT = text("INSERT INTO unit (name) VALUES (:name)")
KEYS = sa.Table("unit_keys", sa.MetaData(), sa.Column("id", sa.String(20), primary_key=True))
DEADLOCK = Fault(
    code="DatabaseErrorException", message="Deadlock found; Error code: 1213; SQLState: 40001"
)
# Every fault in a long run; in a short one those that show most.
SWEPT = pytest.mark.parametrize(
    "fault",
    [
        fault if fault.code is None and not fault.cut else pytest.param(fault, marks=pytest.mark.sweep)
        for fault in FAULTS
    ],
    ids=str,
)
# A unit of work with a key: BEGIN, the key's row, two rows, COMMIT.
CALLS = ("BeginTransaction", "key", "first INSERT", "second INSERT", "CommitTransaction")


@pytest.fixture(scope="module")
def mariadb():
    """A MariaDB with the tables; skips where it is not installed."""
    try:
        server = MariaDB(settings={"innodb-flush-log-at-trx-commit": "0"}, password="canary-7f3a9c51")
        server.start()
    except LabError as error:
        pytest.skip(str(error))
    with server, connect(server) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE TABLE unit (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20) UNIQUE)")
        cursor.execute("CREATE TABLE unit_keys (id varchar(20) PRIMARY KEY)")
        yield server


def connect(server):
    """A connection of its own."""
    place = {"host": "127.0.0.1", "port": server.port, "database": "orders"}
    return pymysql.connect(**place, user="app", password=server.password, autocommit=True)


@pytest.fixture
def api(mariadb, monkeypatch):
    """The API over empty tables."""
    with connect(mariadb) as admin, admin.cursor() as cursor:
        cursor.execute("DELETE FROM unit")
        cursor.execute("DELETE FROM unit_keys")
    with DataApi(mariadb, secret_key="canary-data-api-secret-key") as api:
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        yield api


@pytest.fixture
def engine(api):
    """It is connected."""
    engine = lambdadb.create_engine(api.url())
    with engine.connect():
        pass
    yield engine
    engine.dispose()


def names(server):
    """What is stored."""
    with connect(server) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT name FROM unit ORDER BY name")
        return [name for (name,) in cursor.fetchall()]


def work(connection):
    """Two rows, so that half of a unit would be seen."""
    for name in ("a", "b"):
        connection.execute(INSERT, {"name": name})


def test_the_first_connect_is_one_call_and_a_transaction_three(api):
    """As with PostgreSQL. A unit of work has none more, since MySQL knows nothing of a transaction."""
    engine = lambdadb.create_engine(api.url())
    with engine.connect():
        assert api.calls == ["Execute"]
    assert engine.url.drivername == "mysql+data_api"
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert api.calls[1:] == ["BeginTransaction", "Execute", "CommitTransaction"]
    lambdadb.run_transaction(engine, lambda connection: connection.execute(text("SELECT 1")))
    assert api.calls[4:] == ["BeginTransaction", "Execute", "CommitTransaction"]
    engine.dispose()


VALUES = [
    (sa.Integer(), -(2**31)),
    (mysql.BIGINT(unsigned=True), 2**64 - 1),
    (sa.Float(53), 0.1),
    (sa.Numeric(30, 9), Decimal("12345678901234567890.123456789")),
    (sa.String(40), "é'\\:x \N{SNOWMAN} % ; \0"),
    (sa.Text(), 'a "quoted" one'),
    (sa.Boolean(), False),
    (sa.LargeBinary(), b"\x00\xff"),
    (sa.Date(), datetime.date(2026, 2, 28)),
    (mysql.TIME(fsp=6), datetime.time(1, 2, 3, 456789)),
    (mysql.DATETIME(fsp=6), datetime.datetime(2026, 1, 2, 3, 4, 5, 678900)),  # noqa: DTZ001
    (sa.Uuid(), UUID("6f1c2a34-0000-4000-8000-000000000000")),
    (sa.JSON(), {"a": [1, None, "x"]}),
    (sa.Enum("red", "green", name="colour"), "red"),
]


def test_values_survive_the_way_there_and_back(engine):
    """Each type, its NULL, and as a list of rows in one batch."""
    metadata = sa.MetaData()
    columns = [sa.Column(f"c{n}", kind) for n, (kind, _) in enumerate(VALUES)]
    table = sa.Table("kinds", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)
    row = {f"c{n}": value for n, (_, value) in enumerate(VALUES)}
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(row))
        connection.execute(table.insert(), [row, row])
        connection.execute(table.insert().values({f"c{n}": sa.null() for n in range(len(VALUES))}))
        found = [one._mapping for one in connection.execute(sa.select(table).order_by(table.c.id))]
    metadata.drop_all(engine)
    for name, value in row.items():
        assert [one[name] for one in found] == [value] * 3 + [None], VALUES[int(name[1:])]


def test_a_table_is_inspected_and_an_id_is_returned(engine):
    """By RETURNING where the server has it, and else by what the API says was generated."""
    assert [one["name"] for one in sa.inspect(engine).get_columns("unit")] == ["id", "name"]
    table = sa.Table("unit", sa.MetaData(), autoload_with=engine)
    plain = sa.Table("unit", sa.MetaData(), autoload_with=engine, implicit_returning=False)
    with engine.begin() as connection:
        keys = [
            connection.execute(one.insert().values(name=name)).inserted_primary_key[0]
            for one, name in ((table, "a"), (plain, "b"))
        ]
        stored = connection.scalars(sa.select(table.c.id).order_by(table.c.name)).all()
    assert keys == stored


def test_what_mariadb_has_besides(engine):
    """Sequences, RETURNING without a row, and a number that stays one in an expression."""
    metadata = sa.MetaData()
    sequence = sa.Sequence("numbers", metadata=metadata, start=5)
    table = sa.Table("numbered", metadata, sa.Column("id", sa.Integer, sequence, primary_key=True))
    metadata.create_all(engine)
    with engine.begin() as connection:
        assert connection.scalar(sequence) == 5
        assert connection.execute(table.insert()).inserted_primary_key == (6,)
        deleted = connection.execute(table.delete().where(sa.false()).returning(table.c.id))
        assert (deleted.returns_rows, deleted.all()) == (True, [])
        assert connection.scalar(sa.select(sa.literal(Decimal("40.020")))) == Decimal("40.020")
    metadata.drop_all(engine)


def test_errors_have_a_class_and_a_number(engine):
    """And a statement that fails leaves its transaction open, as MySQL does."""
    with engine.begin() as connection:
        connection.execute(INSERT, {"name": "a"})
        with pytest.raises(exc.IntegrityError) as raised:
            connection.execute(INSERT, {"name": "a"})
        assert (raised.value.orig.number, raised.value.orig.sqlstate) == (1062, "23000")
        with pytest.raises(exc.ProgrammingError, match="Error code: 1064"):
            connection.execute(text("SELEC 1"))
        with pytest.raises(exc.ProgrammingError, match="Multistatements"):
            connection.exec_driver_sql("SELECT 1; SELECT 2")
        connection.execute(INSERT, {"name": "b"})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM unit")) == 2


def test_an_isolation_level_cannot_be_chosen(engine):
    """It would have to be set before the transaction begins, for which the API has no session."""
    with pytest.raises(exc.ArgumentError, match="AUTOCOMMIT, REPEATABLE READ"):
        engine.connect().execution_options(isolation_level="SERIALIZABLE")


def test_a_url_without_a_database_is_refused(api):
    """The API has no default for it."""
    url = sa.make_url(api.url()).set(database="")
    with pytest.raises(lambdadb.InvalidSettings, match="no database"):
        lambdadb.create_engine(url)


def test_a_deadlock_ends_the_transaction_and_run_transaction_repeats_it(api, engine, mariadb):
    """The session would go on in another transaction: so nothing but a rollback is sent."""
    with engine.begin() as connection:
        work(connection)
    runs = []

    def conflict(connection):
        runs.append(None)
        connection.execute(text("UPDATE unit SET name = 'c' WHERE name = 'a'"))
        if len(runs) == 1:
            api.fail(DEADLOCK)
        with pytest.raises(exc.OperationalError) if len(runs) == 1 else does_not_raise():
            connection.execute(text("UPDATE unit SET name = 'd' WHERE name = 'b'"))
        connection.execute(text("SELECT 1"))

    with pytest.raises(exc.InternalError, match="such as a deadlock"), engine.begin() as connection:
        conflict(connection)
    runs.clear()
    with pytest.raises(exc.InternalError, match="such as a deadlock"):
        lambdadb.run_transaction(engine, conflict)
    assert names(mariadb) == ["a", "b"]
    runs.clear()

    def honest(connection):
        runs.append(None)
        if len(runs) == 1:
            api.fail(DEADLOCK)
        connection.execute(text("UPDATE unit SET name = 'd' WHERE name = 'b'"))

    lambdadb.run_transaction(engine, honest)
    assert len(runs) == 2
    assert names(mariadb) == ["a", "d"]


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE x (a int)", "/* a */ CALL p()", "TRUNCATE unit", "XA END 'x'"]
)
def test_what_may_commit_is_refused_in_a_unit_of_work(api, engine, sql):
    """It could not be repeated afterwards. Outside of one it is sent."""
    with pytest.raises(lambdadb.TransactionEnded, match="may commit"):
        lambdadb.run_transaction(engine, lambda connection: connection.execute(text(sql)))
    assert api.calls[-2:] == ["BeginTransaction", "RollbackTransaction"]


@SWEPT
def test_ddl_without_an_answer_is_in_doubt(api, engine, fault):
    """It commits by itself, so it is not repeated, even as the first statement."""
    api.fail(fault, after=1)
    with pytest.raises(lambdadb.CommitInDoubt), engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS made (a int)"))
    assert api.calls.count("Execute") == 2


def sweep(numbers, calls):
    """The calls of a unit, those of a short run without a mark."""
    return pytest.mark.parametrize(
        "number",
        [n if n in numbers else pytest.param(n, marks=pytest.mark.sweep) for n in range(len(calls))],
        ids=calls,
    )


@SWEPT
@sweep([4], CALLS)
def test_a_unit_with_a_key_is_stored_once(mariadb, api, engine, number, fault):
    """Whichever call fails in whichever way."""
    api.fail(fault, after=number)
    lambdadb.run_transaction(engine, work, idempotency_key=(KEYS.c.id, "k"))
    assert names(mariadb) == ["a", "b"]


@SWEPT
@sweep([3], [name for name in CALLS if name != "key"])
def test_a_unit_without_a_key_is_stored_once_or_in_doubt(mariadb, api, engine, number, fault):
    """Only a COMMIT without an answer leaves doubt, and the row is there or not, as a whole."""
    api.fail(fault, after=number)
    with pytest.raises(lambdadb.CommitInDoubt) if number == 3 else does_not_raise():
        lambdadb.run_transaction(engine, work)
    assert names(mariadb) == (["a", "b"] if number != 3 or fault.effect else [])


@SWEPT
@sweep([1], ["BeginTransaction", "INSERT", "CommitTransaction"])
def test_a_plain_transaction_is_never_doubled(mariadb, api, engine, number, fault):
    """Its first statement is repeated in a new transaction, and its COMMIT is in doubt."""
    api.fail(fault, after=number)
    with (
        pytest.raises(lambdadb.CommitInDoubt) if number == 2 else does_not_raise(),
        engine.begin() as connection,
    ):
        connection.execute(INSERT, {"name": "a"})
    assert names(mariadb) == ["a"] * (number != 2 or fault.effect)


def test_a_later_read_is_not_repeated(api, engine):
    """MySQL does not say whether a transaction has written something."""
    api.fail(Fault(), after=2)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(exc.OperationalError):
            connection.execute(text("SELECT 1"))
    assert api.calls.count("Execute") == 3


def test_asynchronous_code_takes_the_same_path(api, mariadb):
    """One driver serves both."""

    async def use():
        engine = lambdadb.aio.create_async_engine(api.url())

        async def both(connection):
            for name in ("a", "b"):
                await connection.execute(INSERT, {"name": name})

        await lambdadb.aio.run_transaction(engine, both)
        await engine.dispose()

    asyncio.run(use())
    assert names(mariadb) == ["a", "b"]


@pytest.mark.sweep
def test_a_paused_cluster_is_waited_for(mariadb, monkeypatch):
    """Its answers are the API's, whatever the database is."""
    with (
        MariaDB() as server,
        Cluster(server, auto_pause=300.0, resume=1.0, paused=True) as cluster,
        DataApi(server, cluster=cluster) as api,
    ):
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        engine = lambdadb.create_engine(api.url())
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()
