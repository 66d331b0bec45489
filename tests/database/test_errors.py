"""lambdadb's errors arrive by their own names, wherever SQLAlchemy was when they were raised."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.orm import Session

from lambdadb import ConnectFailed, ConnectionInUse, InvocationEnded, OutOfTime
from lambdadb.lab.context import LambdaContext

# SQLAlchemy closes a server-side cursor that has failed by a statement, which cannot be sent either.
pytestmark = pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted:ResourceWarning")

ONE = text("SELECT 1")
ADD = text("INSERT INTO item (name) VALUES (:name)")


@pytest.fixture(autouse=True, scope="module")
def collected():
    """The cursors of these tests are collected before the tests of another module."""
    yield
    gc.collect()


def stream(connection):
    for _ in connection.execution_options(stream_results=True).execute(ONE):
        pass


def use_a_session(connection):
    with Session(connection) as session:
        session.execute(ONE)
        session.commit()


ACTIONS = {
    "execute": lambda connection: connection.execute(ONE),
    "executemany": lambda connection: connection.execute(ADD, [{"name": "a"}, {"name": "b"}]),
    "driver sql": lambda connection: connection.exec_driver_sql("SELECT 1"),
    "stream": stream,
    "begin": lambda connection: connection.begin(),
    "begin nested": lambda connection: connection.begin_nested(),
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "isolation level": lambda c: c.execution_options(isolation_level="SERIALIZABLE").execute(ONE),
    "autocommit": lambda c: c.execution_options(isolation_level="AUTOCOMMIT").execute(ONE),
    "read only": lambda c: c.execution_options(postgresql_readonly=True).execute(ONE),
    "ask isolation level": lambda connection: connection.get_isolation_level(),
    "reflect": lambda connection: inspect(connection).get_table_names(),
    "dbapi connection": lambda connection: connection.connection,
    "session": use_a_session,
    "close": lambda connection: connection.close(),
}

STATES = ["idle", "in a transaction", "in a savepoint", "invalidated", "isolation level"]


def bring_to(state, connection):
    """The connection in a state, with nothing wrong so far."""
    if state == "isolation level":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    if state in ("in a transaction", "in a savepoint"):
        connection.execute(ONE)
    if state == "in a savepoint":
        connection.begin_nested()
    if state == "invalidated":
        connection.invalidate()


def error_of(action, connection):
    """What it raises; None if it succeeds."""
    try:
        ACTIONS[action](connection)
    except BaseException as error:
        return error
    return None


# What SQLAlchemy itself refuses in such a state is its own, such as a level inside a transaction.
SQLALCHEMYS_OWN = ("InvalidRequestError", "PendingRollbackError", "ResourceClosedError")


@pytest.mark.parametrize("state", STATES)
def test_out_of_time_by_its_own_name(state, mode, database):
    """Whatever is done after the deadline succeeds without the server, or raises OutOfTime itself."""

    def steps():
        seen = set()
        for action in ACTIONS:
            engine = mode.create_engine(database)
            connection = engine.connect()
            bring_to(state, connection)
            with mode.invocation(engine, LambdaContext(0.5)):
                error = error_of(action, connection)
                seen.add(type(error).__name__)
                known = error is None or type(error) is OutOfTime
                assert known or type(error).__name__ in SQLALCHEMYS_OWN, (action, error)
            connection.close()
            engine.dispose()
        assert "OutOfTime" in seen

    mode.run(steps)


def test_connection_in_use_by_its_own_name(mode, database):
    """A connection that connects again finds its place taken, and says so."""

    def steps():
        engine = mode.create_engine(database)
        for action in ACTIONS:
            connection = engine.connect()
            connection.invalidate()
            with engine.connect():
                error = error_of(action, connection)
                assert error is None or type(error) is ConnectionInUse, (action, error)
                if action in ("execute", "driver sql", "isolation level", "ask isolation level"):
                    assert error is not None
            connection.close()
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("state", STATES)
def test_the_end_of_an_invocation_by_its_own_name(state, mode, database):
    """A connection that was left open says InvocationEnded, and nothing of SQLAlchemy's or psycopg's."""

    def steps():
        seen = set()
        for action in ACTIONS:
            engine = mode.create_engine(database)
            with mode.invocation(engine):
                connection = engine.connect()
                bring_to(state, connection)
            error = error_of(action, connection)
            seen.add(type(error).__name__)
            known = error is None or type(error) is InvocationEnded
            assert known or type(error).__name__ in SQLALCHEMYS_OWN, (action, error)
            connection.close()
            engine.dispose()
        assert state == "invalidated" or "InvocationEnded" in seen

    mode.run(steps)


def to_another_database(dialect, record, arguments, parameters):
    """SQLAlchemy's `do_connect` listener."""
    parameters["dbname"] = "not_there"


def test_a_failed_connect_by_its_own_name(mode, database):
    """A connection that connects again and cannot: ConnectFailed, as at the first connect."""

    def steps():
        for action in ACTIONS:
            engine = mode.create_engine(database)
            connection = engine.connect()
            bring_to("invalidated", connection)
            event.listen(engine, "do_connect", to_another_database)
            error = error_of(action, connection)
            assert error is None or type(error) is ConnectFailed, (action, error)
            connection.close()
            engine.dispose()

    mode.run(steps)
