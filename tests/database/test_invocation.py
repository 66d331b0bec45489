"""The end of an invocation, and what it leaves alone."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

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


@pytest.fixture
def engine(database):
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@POLICIES
def test_a_session_never_closed_is_ended_with_the_invocation(policy, road, database, sessions, caplog):
    """A forgotten session is rolled back and named; the next invocation works as ever."""

    def forget(engine):
        connection = engine.connect()
        connection.execute(text("INSERT INTO item (name) VALUES ('forgotten')"))
        return connection

    def steps():
        engine = road.create_engine(database, policy=policy)
        with road.invocation(engine):
            forgotten = forget(engine)
        sessions.become(0)
        assert "forget (test_invocation.py" in caplog.text
        with road.invocation(engine), engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        forgotten.close()
        with road.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        engine.dispose()

    road.run(steps)


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
