"""What a session of the server is opened with, and what an engine then does as SQLAlchemy's."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import lambdadb
from lambdadb import (
    PerEnvironment,
    PerInvocation,
)
from lambdadb.lab.context import LambdaContext


@pytest.fixture
def engine(database):
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def in_lambda(monkeypatch):
    """The environment of a function."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders-import")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "12")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_the_server_shows_the_functions_name(in_lambda, mode, database, sessions):
    """An operator finds the function in pg_stat_activity, from the first moment of the session."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect():
            assert [name for _, name, _ in sessions.become(1)] == ["orders-import"]
        engine.dispose()

    mode.run(steps)


def test_the_callers_template_is_used(in_lambda, mode, database, sessions):
    """Name, version and alias as the caller wants them."""

    context = LambdaContext(arn="arn:aws:lambda:eu-west-1:1:function:orders-import:live")

    def steps():
        engine = mode.create_engine(database, tag="{name}/{version}/{alias}", policy=PerInvocation())
        with mode.invocation(engine, context), engine.connect():
            assert [name for _, name, _ in sessions.become(1)] == ["orders-import/12/live"]

    mode.run(steps)


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_idle_sessions_end_by_default(policy, mode, database):
    """The server knows from the startup packet when to end an idle session, in a transaction or not."""

    def steps():
        engine = mode.create_engine(database, policy=policy)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW idle_session_timeout")) == "1min"
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
        engine.dispose()

    mode.run(steps)


def test_the_idle_timeout_can_be_left_to_the_server(mode, database):
    """None sends nothing."""

    def steps():
        policy = PerEnvironment(idle_session_timeout=None, idle_in_transaction_session_timeout=None)
        engine = mode.create_engine(database, policy=policy)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW idle_session_timeout")) == "0"
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
        engine.dispose()

    mode.run(steps)


def test_the_orm_works_unchanged(mode, database):
    """Insert, flush, select, rollback through an ordinary Session."""

    def steps():
        engine = mode.create_engine(database)
        with Session(engine) as session, session.begin():
            session.add_all([Item(name="a"), Item(name="b")])
        with Session(engine) as session:
            session.add(Item(name="c"))
            session.flush()
            session.rollback()
            assert session.scalars(text("SELECT name FROM item ORDER BY id")).all() == ["a", "b"]
        engine.dispose()

    mode.run(steps)


def test_psycopgs_own_keywords_reach_the_connection(mode, database):
    """autocommit, prepare_threshold and an isolation level behave as with SQLAlchemy alone."""

    def steps():
        engine = mode.create_engine(
            database,
            isolation_level="REPEATABLE READ",
            connect_args={"prepare_threshold": None, "options": "-c search_path=pg_catalog"},
        )
        with engine.connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold is None
            assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
            assert connection.scalar(text("SHOW search_path")) == "pg_catalog"
            assert connection.scalar(text("SHOW idle_session_timeout")) == "1min"
        engine.dispose()

    mode.run(steps)


def test_adapters_registered_on_the_engine_are_used(mode, database):
    """SQLAlchemy's own type adapters (here: jsonb through its dialect) are those of the connection."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            assert connection.scalar(text("""SELECT '{"a": 1}'::jsonb""")) == {"a": 1}
            assert connection.scalar(text("SELECT ARRAY[1, 2]")) == [1, 2]
        engine.dispose()

    mode.run(steps)
