"""Units of work that break the rules of `run_transaction`, outlive their invocation or have no time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb import (
    InvalidSettings,
    InvocationEnded,
    TransactionEnded,
    aio,
    run_transaction,
)
from lambdadb.lab.context import LambdaContext

ADD = text("INSERT INTO item (name) VALUES (:name)")
ONE = text("SELECT 1")


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM item")))


def test_an_error_after_the_commit_repeats_nothing(database):
    """`after_commit` fails with a serialization error of its own: the row is committed, and told so."""
    engine, other = lambdadb.create_engine(database), lambdadb.create_engine(database)
    sessions = sessionmaker(engine)
    audits = []

    def audit(session):
        audits.append(1)
        with other.connect() as connection:
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING errcode = '40001'; END $$"))

    event.listen(sessions, "after_commit", audit)
    run_transaction(sessions, lambda session: session.execute(ADD, {"name": "once"}))
    assert names(engine) == ["once"]
    assert audits == [1]
    engine.dispose()
    other.dispose()


def test_a_unit_that_commits_itself_is_never_repeated(engine, sessions):
    """It broke the rule, and then lost its connection: what is committed is not done again."""

    def work(connection):
        connection.execute(ADD, {"name": "once"})
        connection.connection.driver_connection.execute("COMMIT")
        sessions.terminate()
        connection.execute(ONE)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)
    assert names(engine) == ["once"]


def test_coroutine_functions_and_two_phase_sessions_are_refused(engine):
    """What could not be repeated, or would not run at all, is an error and not a silence."""

    async def work(connection):
        pass

    with pytest.raises(InvalidSettings, match=r"aio\.run_transaction"):
        run_transaction(engine, work)
    with pytest.raises(InvalidSettings, match="two-phase"):
        run_transaction(sessionmaker(engine, twophase=True), print)


def test_the_asynchronous_decorator(database):
    """`aio.transactional`: the connection comes first, the caller's arguments after it."""

    async def main():
        engine = aio.create_async_engine(database)

        @aio.transactional(engine)
        async def place(connection, name):
            await connection.execute(ADD, {"name": name})
            return name

        assert await place("a") == "a"
        await engine.dispose()

    asyncio.run(main())


def test_a_unit_left_in_a_thread_is_not_repeated_after_its_invocation(engine, sessions):
    """What the end of an invocation broke does not begin anew outside of it."""
    runs, errors, started = [], [], threading.Event()

    def work(connection):
        runs.append(1)
        started.set()
        connection.execute(text("INSERT INTO item (name) SELECT 'late' FROM pg_sleep(30)"))

    def left():
        try:
            run_transaction(engine, work)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=left)
    with lambdadb.invocation(engine):
        thread.start()
        started.wait(10)
        while "active" not in [state for *_, state in sessions()]:
            pass
    thread.join(10)
    assert [type(error) for error in errors] == [InvocationEnded]
    assert runs == [1]
    sessions.become(0)


def test_a_unit_without_time_is_not_sent_and_costs_no_connection(database, sessions):
    """`OutOfTime` before BEGIN: nothing was sent, and the warm session is still there."""
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        connection.execute(ONE)
    (before,) = sessions.become(1)
    with lambdadb.invocation(engine, LambdaContext(0.5)), pytest.raises(lambdadb.OutOfTime) as caught:
        run_transaction(engine, lambda connection: connection.execute(ADD, {"name": "no"}))
    assert not caught.value.sent
    assert [pid for pid, *_ in sessions()] == [before[0]]
    assert names(engine) == []
    engine.dispose()


def test_a_failed_unit_in_autocommit_leaves_no_transaction(database, sessions):
    """Where SQLAlchemy does not roll back, because it believes to be in autocommit."""
    engine = lambdadb.create_engine(database, isolation_level="AUTOCOMMIT")

    def work(connection):
        connection.execute(ADD, {"name": "undone"})
        raise KeyError

    with pytest.raises(KeyError):
        run_transaction(engine, work)
    assert {state for *_, state in sessions()} == {"idle"}
    assert names(engine) == []
    engine.dispose()


@pytest.mark.parametrize("decorator", [lambdadb.transactional, aio.transactional])
def test_a_method_is_refused(decorator, engine):
    """It would get the connection as `self`: found while the class is made."""
    with pytest.raises(InvalidSettings, match=r"Orders\.place is a method"):

        class Orders:
            @decorator(engine)
            def place(self, connection, item):
                pass
