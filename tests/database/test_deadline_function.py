"""`deadline_function=`: each transaction of an invocation has a time limit in the server."""

from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.util import await_only

import lambdadb
from lambdadb import InvalidSettings, OutOfTime, ResumeRetry
from lambdadb.lab.context import LambdaContext
from lambdadb.operate.deadline_function import make_deadline_function

FUNCTION = "lambdadb_deadline"
LIMIT = text("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")


def copy(connection):
    """COPY as a transaction's first statement."""
    driver = connection.connection.driver_connection

    async def run():
        async with driver.cursor().copy("COPY item (name) FROM STDIN") as stream:
            await stream.write_row(["x"])

    if connection.dialect.is_async:
        await_only(run())
        return
    with driver.cursor().copy("COPY item (name) FROM STDIN") as stream:
        stream.write_row(["x"])


FIRST = {
    "no parameters": lambda c: c.exec_driver_sql("SELECT 1"),
    "parameters": lambda c: c.execute(text("SELECT :a"), {"a": 1}),
    "many": lambda c: c.execute(
        text("INSERT INTO item (name) VALUES (:name)"), [{"name": "a"}, {"name": "b"}]
    ),
    "serializable": lambda c: c.execution_options(isolation_level="SERIALIZABLE").execute(LIMIT),
    "stream": lambda c: c.execute(text("SELECT 1"), execution_options={"stream_results": True}).all(),
    "copy": copy,
}


@pytest.fixture
def function(database):
    """The function is in the database."""
    engine = lambdadb.create_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql(make_deadline_function(FUNCTION))
    engine.dispose()


@pytest.mark.parametrize("first", FIRST)
def test_a_transaction_has_it_however_it_begins(first, mode, database, function):
    """And the next one, outside of an invocation, has none."""

    def steps():
        engine = mode.create_engine(database, deadline_function=FUNCTION)
        with mode.invocation(engine, LambdaContext(30.0)), engine.connect() as connection:
            FIRST[first](connection)
            assert 0 < connection.scalar(LIMIT) <= 29_500
        with engine.connect() as connection:
            assert connection.scalar(LIMIT) == 0
        engine.dispose()

    mode.run(steps)


def test_run_transaction_has_it(mode, database, function):
    """In the one round trip in which it asks for the transaction's id."""

    def steps():
        engine = mode.create_engine(database, deadline_function=FUNCTION)
        with mode.invocation(engine, LambdaContext(30.0)):
            assert 0 < lambdadb.run_transaction(engine, lambda c: c.scalar(LIMIT)) <= 29_500
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("first", ["no parameters", "parameters", "many"])
def test_a_server_without_the_function_is_named(first, mode, database):
    """InvalidSettings, with the command that creates it. The connection goes on outside."""

    def steps():
        engine = mode.create_engine(database, deadline_function=FUNCTION)
        with (
            mode.invocation(engine, LambdaContext(30.0)),
            engine.connect() as connection,
            pytest.raises(InvalidSettings, match=f"`lambdadb deadline --name {FUNCTION} | psql URL`"),
        ):
            FIRST[first](connection)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        engine.dispose()

    mode.run(steps)


def test_a_shorter_limit_stays(database, function):
    """One of the role, of the session, or an earlier one of the transaction."""
    engine = sqlalchemy.create_engine(database)
    with engine.begin() as connection:
        for given, called, kept in ((500, 1000, 500), (0, 1000, 1000), (90_000, 1000, 1000)):
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {given}")
            connection.exec_driver_sql(f"SELECT {FUNCTION}({called})")
            assert connection.scalar(LIMIT) == kept
    engine.dispose()


def test_the_client_is_first(mode, database, function):
    """The handler gets OutOfTime from its own side, not the server's error half a reserve later."""

    def steps():
        engine = mode.create_engine(database, deadline_function=FUNCTION, retry=ResumeRetry(reserve=1.0))
        engine.connect().close()

        def work():
            with mode.invocation(engine, LambdaContext(1.3)), engine.begin() as connection:
                connection.execute(text("SELECT pg_sleep(30)"))

        with pytest.raises(OutOfTime):
            work()
        engine.dispose()

    mode.run(steps)


def test_an_error_of_a_users_function_is_the_servers(database, function):
    """Only a refused deadline function is translated."""
    engine = lambdadb.create_engine(database, deadline_function=FUNCTION)
    with (
        lambdadb.invocation(engine, LambdaContext(30.0)),
        engine.connect() as connection,
        pytest.raises(sqlalchemy.exc.ProgrammingError, match=r"missing\(\) does not exist"),
    ):
        connection.execute(text("SELECT missing()"))
    engine.dispose()


@pytest.mark.parametrize("name", ["", "a b", "f()", "a.b.c", "1", '"F"', 1])
def test_a_name_that_cannot_be_one_is_refused(name):
    """While the engine is made."""
    with pytest.raises(InvalidSettings, match="use the name of a function"):
        lambdadb.create_engine("postgresql+psycopg://h/d", deadline_function=name)


def test_it_fits_into_a_url(database, function):
    """As the other settings of a URL."""
    engine = lambdadb.create_engine(database.update_query_dict({"lambdadb_deadline_function": FUNCTION}))
    with lambdadb.invocation(engine, LambdaContext(30.0)), engine.connect() as connection:
        assert connection.scalar(LIMIT) > 0
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql+pymysql://h/d", "postgresql+data_api:///d"])
def test_other_drivers_refuse_it(url):
    """They cannot send it with BEGIN."""
    with pytest.raises(InvalidSettings):
        lambdadb.create_engine(url, deadline_function=FUNCTION)
