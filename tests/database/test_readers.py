"""An engine whose transactions only read, on a standby: what it reads, refuses and survives."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

import lambdadb
from lambdadb import DatabaseResuming, InvalidSettings, PerInvocation, ResumeRetry
from lambdadb.aio import create_async_engine
from lambdadb.lab.postgres import Postgres, Standby
from lambdadb.readers import create_reader_engine

RECOVERY = text("SELECT pg_is_in_recovery()")


@pytest.fixture(scope="module")
def primary():
    """A writer with a table, and rows."""
    with Postgres() as primary:
        with psycopg.connect(primary.url().replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("CREATE TABLE item (name text)")
        yield primary


@pytest.fixture(scope="module")
def standby(primary):
    """Its standby, for tests that do not promote it."""
    with Standby(primary) as standby:
        yield standby


@pytest.fixture
def engine(primary):
    """The writer's engine."""
    retry = ResumeRetry(timeout=1.5)
    engine = lambdadb.create_engine(primary.url(), policy=PerInvocation(), retry=retry)
    yield engine
    engine.dispose()


def test_it_reads_from_the_standby_with_the_other_engines_settings(engine, standby):
    """The policy, the retry and the driver's arguments are the same; the server is another one."""
    reader = create_reader_engine(engine, f"127.0.0.1:{standby.port}")
    assert reader.pool.connector.settings == engine.pool.connector.settings
    with reader.connect() as connection:
        assert connection.execute(RECOVERY).scalar_one() is True
    assert lambdadb.run_transaction(reader, lambda c: c.execute(RECOVERY).scalar_one()) is True
    with engine.connect() as connection:
        assert connection.execute(RECOVERY).scalar_one() is False
    reader.dispose()


def test_a_write_is_refused_wherever_it_lands(engine, standby, primary):
    """On the standby, and on a writer that may answer."""
    for port, keywords in ((standby.port, {}), (primary.port, {"writer_may_answer": True})):
        reader = create_reader_engine(engine, f"127.0.0.1:{port}", **keywords)
        with pytest.raises(DBAPIError, match="read-only transaction"), reader.begin() as connection:
            connection.execute(text("INSERT INTO item VALUES ('a')"))
        reader.dispose()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM item")).scalar_one() == 0


def test_it_never_lands_on_the_writer_unasked(engine, primary):
    """A name that leads to the writer is waited for, as for a reader that is still waking up."""
    reader = create_reader_engine(engine, f"127.0.0.1:{primary.port}")
    with pytest.raises(DatabaseResuming, match="not in hot standby mode"):
        reader.connect()
    asked = create_reader_engine(engine, f"127.0.0.1:{primary.port}", writer_may_answer=True)
    with asked.connect() as connection:
        assert connection.execute(RECOVERY).scalar_one() is False
    asked.dispose()


@pytest.mark.sweep
def test_a_promoted_reader_is_left(primary, engine):
    """The transaction that meets the promotion only reads. The next one needs a standby."""
    with Standby(primary) as promoted:
        lasting = lambdadb.create_engine(primary.url(), retry=ResumeRetry(timeout=1.5))
        reader = create_reader_engine(lasting, f"127.0.0.1:{promoted.port}")
        with reader.connect() as connection:
            first = connection.connection.driver_connection
        promoted.promote()
        for _ in range(3000):
            with reader.connect() as connection:
                if connection.execute(RECOVERY).scalar_one() is False:
                    break
                connection.execute(text("SELECT pg_sleep(0.01)"))
        assert first.closed
        with pytest.raises(DatabaseResuming):
            reader.connect()
        reader.dispose()
        lasting.dispose()


def test_an_asynchronous_engine_has_an_asynchronous_reader(standby, primary):
    """The same call; the result is of the same kind."""
    reader = create_reader_engine(create_async_engine(primary.url()), f"127.0.0.1:{standby.port}")
    assert isinstance(reader, AsyncEngine)

    async def read():
        async with reader.connect() as connection:
            found = (await connection.execute(RECOVERY)).scalar_one()
        await reader.dispose()
        return found

    assert asyncio.run(read()) is True


@pytest.mark.parametrize(
    ("host", "reader"),
    [
        ("o.cluster-abc.eu-west-1.rds.amazonaws.com", "o.cluster-ro-abc.eu-west-1.rds.amazonaws.com"),
        ("o.cluster-ro-abc.eu-west-1.rds.amazonaws.com", None),
        ("o.cluster-custom-abc.eu-west-1.rds.amazonaws.com", None),
        ("o.proxy-abc.eu-west-1.rds.amazonaws.com", None),
        ("o.abc.eu-west-1.rds.amazonaws.com", None),
        ("db.example", None),
    ],
)
def test_the_reader_endpoint_is_that_of_the_cluster(host, reader):
    """Only a cluster's own endpoint says it. For other names it has to be given."""
    engine = lambdadb.create_engine(f"postgresql+psycopg://app@{host}/orders")
    if reader is None:
        with pytest.raises(InvalidSettings, match="'HOST'"):
            create_reader_engine(engine)
    else:
        assert create_reader_engine(engine).url.host == reader


def test_another_librarys_engine_is_refused():
    """The error names what is needed."""
    import sqlalchemy

    with pytest.raises(InvalidSettings, match="an engine of lambdadb"):
        create_reader_engine(sqlalchemy.create_engine("postgresql+psycopg://h/d"), "r")
