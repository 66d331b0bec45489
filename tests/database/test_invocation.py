"""The end of an invocation, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session, sessionmaker

import lambdadb
from lambdadb import (
    InvocationEnded,
    PerEnvironment,
    PerInvocation,
    aio,
)

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
PID = text("SELECT pg_backend_pid()")
ADD = text("INSERT INTO item (name) VALUES (:name)")
ONE = text("SELECT 1")


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM item")))


@POLICIES
def test_a_session_never_closed_is_ended_with_the_invocation(policy, mode, database, sessions, caplog):
    """A forgotten session is rolled back and named; the next invocation works as ever."""

    def forget(engine):
        connection = engine.connect()
        connection.execute(text("INSERT INTO item (name) VALUES ('forgotten')"))
        return connection

    def steps():
        engine = mode.create_engine(database, policy=policy)
        with mode.invocation(engine):
            forgotten = forget(engine)
        sessions.become(0)
        assert "forget (test_invocation.py" in caplog.text
        with mode.invocation(engine), engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        forgotten.close()
        with mode.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        engine.dispose()

    mode.run(steps)


def test_a_task_left_behind_disturbs_no_other_invocation(database, sessions):
    """Its statement is cancelled on the server, its error is its own, and the next handler works."""
    engine = aio.create_async_engine(database)
    tasks = []

    async def background():
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))

    @lambdadb.handler(engine)
    async def lambda_handler(what, context=None):
        if what == "leave a task":
            tasks.append(asyncio.create_task(background()))
            while not [state for *_, state in sessions() if state == "active"]:
                await asyncio.sleep(0.01)
            return None
        if what == "end":
            return await engine.dispose()
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 42"))

    lambda_handler("leave a task")
    assert [lambda_handler("work") for _ in range(3)] == [42, 42, 42]
    assert [state for *_, state in sessions.become(1)] == ["idle"]
    assert tasks[0].exception() is not None
    lambda_handler("end")


@pytest.mark.parametrize("moment", ["connecting", "executing"])
def test_a_thread_left_behind_is_woken(moment, engine, sessions):
    """A thread that waits for the server when its invocation ends gets an error and does not hang."""
    errors, there, gate = [], threading.Event(), threading.Event()
    if moment == "connecting":
        gate.clear()
    else:
        gate.set()

    @event.listens_for(engine, "connect")
    def connecting(*_):
        there.set()
        gate.wait(10)

    def left():
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(30)"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=left)
    with lambdadb.invocation(engine):
        thread.start()
        there.wait(10)
        while moment == "executing" and "active" not in [state for *_, state in sessions()]:
            pass
    gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert errors
    with lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(ONE)


def test_a_statement_sent_as_the_invocation_ends_does_not_run_on(engine, sessions, monkeypatch):
    """A thread can still send one after the look at its connection: the server cancels that too."""
    with lambdadb.invocation(engine):
        connection = engine.connect()
        connection.execute(ONE)
        pgconn = connection.connection.driver_connection.pgconn

        def dup(descriptor, dup=os.dup):
            pgconn.send_query(b"SELECT pg_sleep(600)")
            sessions.wait_for_statement("SELECT pg_sleep(600)")
            return dup(descriptor)

        monkeypatch.setattr("lambdadb.drivers.psycopg.connection.os.dup", dup)
    sessions.become(0)


def test_a_global_session_is_told_that_its_invocation_ended(engine):
    """A session that was never closed says so when it is used again, and works after a rollback."""
    session = Session(engine)
    with lambdadb.invocation(engine):
        session.execute(ADD, {"name": "lost"})
    with lambdadb.invocation(engine):
        with pytest.raises(InvocationEnded, match="inside the handler"):
            session.execute(ONE)
        session.rollback()
        session.execute(ADD, {"name": "kept"})
        session.commit()
    assert names(engine) == ["kept"]


def test_several_engines_in_one_handler(database):
    """`handler(orders, logs)`: all are inside the invocation."""
    engines = [lambdadb.create_engine(database) for _ in range(2)]

    @lambdadb.handler(*engines)
    def lambda_handler(event, context):
        return [engine.pool.invocations.active for engine in engines]

    assert lambda_handler({}, None) == [True, True]


DOUBLES = [None, "", {}, Mock(), SimpleNamespace()]


@pytest.mark.parametrize("double", DOUBLES, ids=lambda double: type(double).__name__)
@pytest.mark.parametrize("policy", [PerEnvironment(connections=2), PerInvocation(connections=2)])
def test_a_tests_own_session_survives_the_handler(policy, double, mode, database):
    """What began before the invocation goes on after it; the handler's own work is done."""

    def steps():
        engine = mode.create_engine(database, policy=policy)
        with Session(engine) as session:
            session.execute(ADD, {"name": "before"})
            with mode.invocation(engine, double), Session(engine) as inner:
                inner.execute(ADD, {"name": "handler"})
                inner.commit()
            session.execute(ADD, {"name": "after"})
            session.commit()
        assert names(engine) == ["after", "before", "handler"]
        engine.dispose()

    mode.run(steps)


def test_in_lambda_nothing_outlives_an_invocation(monkeypatch, engine, sessions):
    """A session that module scope left open would be frozen in its transaction: it ends."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    left = engine.connect()
    left.execute(ADD, {"name": "lost"})
    with lambdadb.invocation(engine):
        pass
    sessions.become(0)
    left.close()
    assert names(engine) == []


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_a_session_can_join_an_external_transaction(policy, mode, database):
    """SQLAlchemy's recipe for test suites: the handler commits, the test rolls all of it back."""

    def steps():
        engine = mode.create_engine(database, policy=policy)
        make_session = sessionmaker(engine)

        def handle(event, context):
            with mode.invocation(engine, context), make_session() as session:
                session.execute(ADD, {"name": event})
                session.commit()

        with engine.connect() as connection:
            transaction = connection.begin()
            make_session.configure(bind=connection, join_transaction_mode="create_savepoint")
            for name in ("a", "b"):
                handle(name, {})
            rows = connection.scalars(text("SELECT name FROM item ORDER BY name")).all()
            assert rows == ["a", "b"]
            transaction.rollback()
        assert names(engine) == []
        engine.dispose()

    mode.run(steps)


def test_an_invocation_that_begins_as_another_ends_keeps_its_session(engine):
    """Between the end of one and its release another thread may begin the next: it is not touched."""
    first, second = lambdadb.invocation(engine), lambdadb.invocation(engine)
    release = engine.pool.release
    held = []

    def late(number):
        second.__enter__()
        held.append(engine.connect())
        release(number)

    first.__enter__()
    engine.pool.release = late
    first.__exit__(None, None, None)
    engine.pool.release = release
    held[0].execute(ADD, {"name": "kept"})
    held[0].commit()
    held[0].close()
    second.__exit__(None, None, None)
    assert names(engine) == ["kept"]


def make_and_use(database, policy=None):
    """A handler that makes its engine itself."""
    made = lambdadb.create_engine(database, policy=policy)
    with made.connect() as connection:
        connection.execute(ONE)
    return made


def test_an_engine_made_inside_an_invocation_ends_with_it(database, sessions, caplog):
    """All its sessions are closed, also those in use; it is told once, with what to do."""
    engine = lambdadb.create_engine(database)
    kept = []
    for _ in range(3):
        with lambdadb.invocation(engine):
            made = make_and_use(database)
            kept += [made, made.connect()]
            assert len(sessions()) == 1
        sessions.become(0)
    warnings = [r.getMessage() for r in caplog.records if "inside a handler" in r.getMessage()]
    assert len(warnings) == 1
    assert "make_and_use (test_invocation.py" in warnings[0]
    assert "module scope" in warnings[0]
    with kept[0].connect() as connection:  # it still works
        connection.execute(ONE)
    engine.dispose()


def test_in_lambda_an_engine_made_again_ends_the_last_one(monkeypatch, database, sessions, caplog):
    """A handler without an invocation: sixty calls, one session."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    kept = [make_and_use(database, PerEnvironment(ping_after=7.0)) for _ in range(60)]
    sessions.become(1)
    assert kept[-1].pool.checkedin() == 1
    kept[-1].dispose()


@pytest.mark.parametrize("in_lambda", [False, True])
def test_engines_that_differ_or_are_made_by_tests_are_left_alone(
    in_lambda, monkeypatch, database, sessions, caplog
):
    """Another database or policy is another engine; outside of Lambda the same one may be made twice."""
    if in_lambda:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    policies = [PerEnvironment(ping_after=seconds) for seconds in (1.0, 2.0, 3.0)]
    policies = policies if in_lambda else [PerEnvironment()] * 3
    engines = [make_and_use(database, policy) for policy in policies]
    sessions.become(3)
    assert "inside a handler" not in caplog.text
    for engine in engines:
        engine.dispose()


def test_an_asynchronous_engine_made_inside_an_invocation_ends_with_it(database, sessions):
    """Also one whose loop is another, or none: its sessions end without an await."""
    engine = lambdadb.create_engine(database)

    async def use():
        async with made.connect() as connection:
            await connection.execute(ONE)

    with lambdadb.invocation(engine):
        made = aio.create_async_engine(database)
        asyncio.run(use())
        sessions.become(1)
    sessions.become(0)
