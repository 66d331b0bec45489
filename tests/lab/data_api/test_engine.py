"""Engines of `postgresql+data_api` over the emulated Data API."""

from __future__ import annotations

import asyncio
import datetime
import select
import threading
import time
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

import pgvector.sqlalchemy
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc, text
from sqlalchemy.dialects import postgresql

import lambdadb
import lambdadb.aio
from lambdadb import DatabaseResuming, OutOfTime, PerInvocation, ResumeRetry
from lambdadb.drivers.data_api import dbapi, http
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.data_api import DataApi, Fault
from lambdadb.lab.postgres import Postgres

ONE = text("SELECT 1")
UTC = datetime.timezone.utc


@pytest.fixture
def environment(api, monkeypatch):
    """The environment variables that lead to the API."""
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def engine(api, environment):
    """An engine with the default policy."""
    engine = lambdadb.create_engine(api.url())
    yield engine
    engine.dispose()


@pytest.fixture
def table(engine):
    """An empty table with a unique column."""
    table = sa.Table(
        "things",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, unique=True),
    )
    with engine.begin() as connection:
        table.metadata.drop_all(connection)
        table.metadata.create_all(connection)
    return table


def count(engine, table):
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table))


def test_the_first_connect_is_one_call_and_later_ones_are_none(api, engine):
    """A transaction is three calls: begin, statement, commit."""
    with engine.connect():
        assert api.calls == ["Execute"]
    with lambdadb.invocation(engine), engine.begin() as connection:
        connection.execute(ONE)
    assert api.calls[1:] == ["BeginTransaction", "Execute", "CommitTransaction"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(ONE)
    assert api.calls[4:] == ["Execute"]


VALUES = [
    (sa.Integer(), -(2**31)),
    (sa.BigInteger(), 2**63 - 1),
    (sa.SmallInteger(), 7),
    (sa.Float(), 0.1),
    (sa.Float(), float("inf")),
    (sa.Numeric(), Decimal("12345678901234567890.123456789")),
    (sa.Numeric(), Decimal("1.50")),
    (sa.String(), "é'\\:x \N{SNOWMAN}"),
    (sa.Boolean(), False),
    (sa.LargeBinary(), b"\x00\xff"),
    (sa.Date(), datetime.date(2026, 2, 28)),
    (sa.Time(), datetime.time(1, 2, 3, 456789)),
    (sa.DateTime(), datetime.datetime(2026, 1, 2, 3, 4, 5, 678900)),  # noqa: DTZ001 the type has none
    (sa.DateTime(timezone=True), datetime.datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC)),
    (postgresql.INTERVAL(), datetime.timedelta(days=-1, hours=5, microseconds=7)),
    (sa.Interval(), datetime.timedelta(hours=30)),
    (sa.Time(timezone=True), datetime.time(1, 2, 3, tzinfo=UTC)),
    (sa.Uuid(), UUID("6f1c2a34-0000-4000-8000-000000000000")),
    (sa.JSON(), {"a": [1, None, "x"]}),
    (postgresql.JSONB(), {"a": {"b": 1.5}}),
    (sa.Enum("red", "green", name="colour"), "red"),
    (postgresql.ARRAY(sa.Integer), [1, None, 3]),
    (postgresql.ARRAY(sa.Integer, dimensions=2), [[1, 2], [3, 4]]),
    (postgresql.ARRAY(sa.String), ['a "quoted" one', "with, comma", "back\\slash", None, "NULL", ""]),
    (postgresql.ARRAY(sa.Numeric), [Decimal("1.5")]),
    (postgresql.ARRAY(sa.Uuid), [UUID("6f1c2a34-0000-4000-8000-000000000000")]),
    (postgresql.INET(), "10.0.0.1"),
]


def test_values_survive_the_way_there_and_back(engine):
    """Each type, its NULL, and as a list of rows in one batch."""
    metadata = sa.MetaData()
    columns = [sa.Column(f"c{n}", kind) for n, (kind, _) in enumerate(VALUES)]
    table = sa.Table("kinds", metadata, *columns)
    row = {f"c{n}": value for n, (_, value) in enumerate(VALUES)}
    nulls = dict.fromkeys(row)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        connection.execute(table.insert().values(row))
        connection.execute(table.insert(), [row, row])
        connection.execute(table.insert().values({f"c{n}": sa.null() for n in range(len(VALUES))}))
        found = [dict(one._mapping) for one in connection.execute(sa.select(table))]
    for name in row:
        assert [one[name] for one in found] == [row[name]] * 3 + [nulls[name]], VALUES[int(name[1:])]


def test_parameters_may_have_any_name_and_a_slice_its_colon(engine):
    """Names that the API could misread are replaced; a slice is not taken for a cast."""
    names = ["1st", "a b", "a:b", "ü", "a.b", "a_b"]
    values = {name: sa.bindparam(name, number) for number, name in enumerate(names)}
    numbers = sa.select(sa.literal([1, 2, 3, 4], postgresql.ARRAY(sa.Integer)).label("n")).subquery()
    with engine.connect() as connection:
        assert tuple(connection.execute(sa.select(*values.values())).one()) == (0, 1, 2, 3, 4, 5)
        assert connection.scalar(sa.select(numbers.c.n[2:3])) == [2, 3]


def test_a_table_is_inspected(engine, table):
    """SQLAlchemy reads the catalogs over the API."""
    inspector = sa.inspect(engine)
    assert [column["name"] for column in inspector.get_columns("things")] == ["id", "name"]
    assert inspector.get_pk_constraint("things")["constrained_columns"] == ["id"]
    (index,) = inspector.get_indexes("things")
    assert (index["column_names"], index["unique"]) == (["name"], True)


def test_a_comparison_gets_the_casts_that_it_needs(engine):
    """A string is text for the server, so a cast is written beside it, in literal SQL too."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT :a, :b + interval '1 s'"), {"a": None, "b": moment}
        ).one()
        assert tuple(found) == (None, moment + datetime.timedelta(seconds=1))
        one = UUID("6f1c2a34-0000-4000-8000-000000000000")
        assert connection.scalar(sa.select(sa.literal(one) == sa.literal(one)))


def test_vectors_are_written_and_searched(engine):
    """As text in both directions, with the types of pgvector."""
    metadata = sa.MetaData()
    columns = [sa.Column("id", sa.Integer, primary_key=True)]
    columns += [sa.Column("v", pgvector.sqlalchemy.Vector(3))]
    table = sa.Table("vectors", metadata, *columns)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        metadata.drop_all(connection)
        metadata.create_all(connection)
        rows = [{"v": [1, 0, 0]}, {"v": [0, 1, 0]}]
        ids = connection.execute(
            table.insert().returning(table.c.id, sort_by_parameter_order=True), rows
        )
        assert len(ids.all()) == 2
        nearest = sa.select(table).order_by(table.c.v.l2_distance([0, 0.9, 0])).limit(1)
        found = connection.execute(nearest).one()
        assert (found.id, list(found.v)) == (2, [0, 1, 0])


@pytest.mark.parametrize(
    ("sql", "kind", "state"),
    [
        ("INSERT INTO things VALUES (1, 'a'), (2, 'a')", exc.IntegrityError, "23505"),
        ("SELECT 1 FROM missing", exc.ProgrammingError, "42P01"),
        ("SELECT 1 / 0", exc.DataError, "22012"),
        ("SELECT pg_advisory_xact_lock('x')", exc.DataError, "22P02"),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$", exc.OperationalError, "40001"),
    ],
)
def test_errors_of_the_server_are_the_right_exceptions(engine, table, sql, kind, state):
    """With the server's SQLSTATE, and the transaction is rolled back."""
    with engine.connect() as connection:
        with pytest.raises(kind) as raised:
            connection.exec_driver_sql(sql)
        assert raised.value.orig.sqlstate == state
        assert type(raised.value) is kind
        connection.rollback()
        assert connection.scalar(ONE) == 1


@pytest.mark.parametrize(
    ("sql", "kind", "remedy"),
    [
        ("SELECT repeat('x', 70000)", exc.DatabaseError, "page through them"),
        ("SELECT interval '1 day'", exc.NotSupportedError, "Cast the column to text"),
        ("SELECT 1; SELECT 2", exc.ProgrammingError, "Multistatements"),
        ("COMMIT", exc.ProgrammingError, "calls of its own"),
        ("/* a */ ROLLBACK", exc.ProgrammingError, "calls of its own"),
    ],
)
def test_limits_are_errors_that_name_the_remedy(engine, sql, kind, remedy):
    """And the transaction can go on."""
    with engine.connect() as connection:
        with pytest.raises(kind, match=remedy):
            connection.exec_driver_sql(sql)
        assert connection.scalar(ONE) == 1


def test_a_request_of_more_than_4_mib_is_refused_before_it_is_sent(api, engine, table):
    """And says how to send less; executemany cuts its batches by itself."""
    with engine.begin() as connection:
        calls = len(api.calls)
        with pytest.raises(exc.ProgrammingError, match="insertmanyvalues_page_size"):
            connection.execute(table.insert(), {"name": "x" * (5 << 20)})
        assert len(api.calls) == calls + 1  # BeginTransaction
        names = [{"name": f"{n}{'x' * 40_000}"[:2000] + str(n)} for n in range(2500)]
        connection.execute(table.insert(), names)
        assert api.calls[calls + 1 :] == ["BatchExecute"] * 3
    assert count(engine, table) == 2500


def test_savepoints_and_failed_transactions(engine, table):
    """A savepoint can be returned to; a transaction that has failed cannot be committed by mistake."""
    with engine.begin() as connection:
        connection.execute(table.insert(), {"name": "a"})
        with pytest.raises(exc.IntegrityError), connection.begin_nested():
            connection.execute(table.insert(), {"name": "a"})
        connection.execute(table.insert(), {"name": "b"})
    assert count(engine, table) == 2
    with engine.connect() as connection:
        connection.execute(table.insert(), {"name": "c"})
        with pytest.raises(exc.IntegrityError):
            connection.execute(table.insert(), {"name": "a"})
        with pytest.raises(exc.InternalError, match="rolled back"):
            connection.commit()
    assert count(engine, table) == 2


def test_the_isolation_level_is_the_transactions_own(engine):
    """And a transaction that only reads refuses writes."""
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
        with pytest.raises(exc.InternalError, match="read-only"):
            connection.execute(text("CREATE TABLE x ()"))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_the_functions_name_is_in_the_statement_and_the_request(api, server, environment, monkeypatch):
    """pg_stat_activity shows the first, CloudTrail the second."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    engine = lambdadb.create_engine(api.url())
    with (
        engine.connect() as connection,
        psycopg.connect(server.url().replace("+psycopg", "")) as admin,
    ):
        connection.execute(text("SELECT 1 AS marked"))
        query = (
            "SELECT query FROM pg_stat_activity WHERE query LIKE '%%marked' AND pid <> pg_backend_pid()"
        )
        assert admin.execute(query).fetchone() == ("/* orders */ SELECT 1 AS marked",)
        assert [one.caller for one in api.transactions] == ["orders"]
    engine.dispose()


def test_one_thread_at_a_time_uses_a_transaction(api, engine):
    """The second is refused here, and not by AWS after a round trip."""
    with engine.connect() as connection:
        connection.execute(ONE)
        slow = threading.Thread(target=lambda: connection.execute(text("SELECT 1 FROM pg_sleep(1)")))
        slow.start()
        end = time.monotonic() + 30
        while not connection.connection.driver_connection._busy.locked():
            assert time.monotonic() < end
        calls = len(api.calls)
        with pytest.raises(dbapi.InterfaceError, match="Another thread"):
            connection.connection.driver_connection.cursor().execute("SELECT 2")
        slow.join()
        assert len(api.calls) <= calls + 1


def test_a_transaction_left_open_is_rolled_back_with_its_invocation(api, engine, table):
    """No transaction of the API outlives the invocation, and nothing of it is stored."""
    with lambdadb.invocation(engine):
        left = engine.connect()
        left.execute(table.insert(), {"name": "a"})
        assert len(api.transactions) == 1
    assert api.transactions == []
    with pytest.raises(lambdadb.InvocationEnded):
        left.execute(ONE)
    left.close()
    assert count(engine, table) == 0


@pytest.mark.parametrize("policy", [None, PerInvocation()], ids=["environment", "invocation"])
def test_asynchronous_code_takes_the_same_path(api, environment, policy):
    """Statements, a transaction that runs once, and other tasks run in the meantime."""

    async def use():
        engine = lambdadb.aio.create_async_engine(api.url(), policy=policy)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with lambdadb.invocation(engine):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1 FROM pg_sleep(0.2)"))

            async def work(connection):
                return await connection.scalar(ONE)

            assert await lambdadb.aio.run_transaction(engine, work) == 1
        ticking.cancel()
        await engine.dispose()
        return ticks

    assert asyncio.run(use()) >= 5
    assert api.transactions == []


def test_an_answer_that_is_there_at_once_is_waited_for_too(api, environment, monkeypatch):
    """SQLAlchemy takes an asynchronous statement without a wait for one of a wrong driver."""
    send = http._Stream.send

    def send_slowly(self, data):
        send(self, data)
        assert select.select([self._inside], [], [], 30)[0]  # the answer is there

    monkeypatch.setattr(http._Stream, "send", send_slowly)

    async def use():
        engine = lambdadb.aio.create_async_engine(api.url())
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
            assert await connection.scalar(ONE) == 1
        await engine.dispose()

    asyncio.run(use())


def test_a_statement_ends_with_the_invocations_time(api, engine, table):
    """No answer is waited for beyond it, and the error says so."""
    with engine.connect():
        pass
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1300)
    with lambdadb.invocation(engine, context), pytest.raises(OutOfTime), engine.begin() as connection:
        connection.execute(text("SELECT pg_sleep(20)"))
    assert count(engine, table) == 0


@pytest.mark.parametrize(
    "code",
    [
        "DatabaseResumingException",
        pytest.param("DatabaseUnavailableException", marks=pytest.mark.sweep),
        pytest.param("StatementTimeoutException", marks=pytest.mark.sweep),
    ],
)
def test_a_paused_cluster_is_waited_for_or_named(code, monkeypatch):
    """Inside of the invocation's time; a write that was answered so is not sent twice."""
    with (
        Postgres(settings={"fsync": "off"}) as server,
        Cluster(server, auto_pause=300.0, resume=1.0, paused=True) as cluster,
        DataApi(server, cluster=cluster) as api,
    ):
        api.answer_resumes_with(code)
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        hurried = lambdadb.create_engine(api.url(), retry=ResumeRetry(timeout=0.2))
        with pytest.raises(DatabaseResuming) as raised:
            hurried.connect()
        assert raised.value.retry_after >= 1
        engine = lambdadb.create_engine(api.url())
        with engine.begin() as connection:
            assert connection.scalar(ONE) == 1
        engine.dispose()
        hurried.dispose()


def test_a_pause_between_two_invocations_is_waited_for(api, engine):
    """The engine is connected, and meets the resume when it begins, or in autocommit."""
    with engine.connect():
        pass
    for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
        api.fail(Fault(code="DatabaseResumingException"), times=2)
        with engine.connect().execution_options(**options) as connection:
            assert connection.scalar(ONE) == 1


def test_wake_sends_one_question(api, engine):
    """And says that the database answers."""
    assert lambdadb.wake(engine).awake
    assert api.calls == ["Execute"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("cluster_arn", "orders"), "ARN of an Aurora cluster"),
        (("secret_arn", ""), "secret_arn is missing"),
        (("sslmode", "require"), "no such parameter"),
    ],
)
def test_a_wrong_url_is_refused_while_the_engine_is_made(api, change, says):
    """With the form of a right one."""
    url = sa.make_url(api.url()).update_query_dict(dict([change]))
    with pytest.raises(lambdadb.InvalidSettings, match=says):
        lambdadb.create_engine(url)


def test_a_user_or_a_host_is_refused(api):
    """The login is in the secret."""
    with pytest.raises(lambdadb.InvalidSettings, match="takes none"):
        lambdadb.create_engine(sa.make_url(api.url()).set(host="database", username="app"))


def test_keys_that_are_wrong_name_the_permissions(api, environment, monkeypatch):
    """The connect fails at once, and no key is shown."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-wrong")
    with pytest.raises(lambdadb.ConnectFailed, match="region in cluster_arn") as raised:
        lambdadb.create_engine(api.url()).connect()
    assert raised.value.attempts == 1


def test_errors_have_the_classes_of_psycopg():
    """For every SQLSTATE that psycopg knows."""
    names = [name for name in vars(dbapi) if hasattr(psycopg, name) and name.endswith("Error")]
    states = [s for s in psycopg.errors._sqlcodes if len(s) == 5 and any(map(str.isdigit, s))]
    assert len(states) > 200
    for state in states:
        theirs = psycopg.errors.lookup(state).__mro__[1:]
        expected = next(one.__name__ for one in theirs if one.__name__ in names)
        assert dbapi.error_class(state).__name__ == expected, state
