"""A unit of work is committed exactly once, or known not to be."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb import InvalidSettings, ResumeRetry, TransactionEnded, aio, run_transaction, transactional

ITEM = Table(
    "item", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text, unique=True)
)
ROWS = select(func.count()).select_from(ITEM)


def add(name):
    return lambda connection: connection.scalar(insert(ITEM).values(name=name).returning(ITEM.c.id))


def count(engine):
    with engine.connect() as connection:
        return connection.scalar(ROWS)


def test_it_commits_once_and_returns_what_the_work_returned(mode, database):
    """The plain case: one run, one row, its result."""

    def steps():
        engine = mode.create_engine(database)
        assert run_transaction(engine, add("a")) == 1
        assert count(engine) == 1
        engine.dispose()

    mode.run(steps)


def test_an_error_of_the_work_rolls_back_and_passes(mode, database):
    """Whatever the work raises reaches the caller unchanged, after a rollback, and is not repeated."""
    runs = []

    def work(connection):
        runs.append(1)
        add("a")(connection)
        raise KeyError("mine")

    def steps():
        engine = mode.create_engine(database)
        with pytest.raises(KeyError, match="mine"):
            run_transaction(engine, work)
        with pytest.raises(IntegrityError):
            run_transaction(engine, lambda connection: [add("b")(connection), add("b")(connection)])
        with pytest.raises(ProgrammingError):
            run_transaction(engine, lambda connection: connection.execute(text("SELECT nothing")))
        assert count(engine) == 0
        engine.dispose()

    mode.run(steps)
    assert runs == [1]


def test_a_connection_lost_in_the_work_is_another_run(mode, database, sessions):
    """Killed before COMMIT: nothing was committed, so the work runs again, on a new session."""
    runs = []

    def work(connection):
        add("a")(connection)
        runs.append(connection.scalar(text("SELECT pg_backend_pid()")))
        if len(runs) < 3:
            sessions.terminate()
        return connection.scalar(text("SELECT 'done'"))

    def steps():
        engine = mode.create_engine(database)
        assert run_transaction(engine, work) == "done"
        assert count(engine) == 1
        engine.dispose()

    mode.run(steps)
    assert len(set(runs)) == 3


def test_serialization_failures_are_repeated(database):
    """Two increments at SERIALIZABLE, forced to conflict: both succeed, and neither is lost."""
    engine = lambdadb.create_engine(database, isolation_level="SERIALIZABLE")
    other = lambdadb.create_engine(database, isolation_level="SERIALIZABLE")
    run_transaction(engine, lambda connection: connection.execute(insert(ITEM).values(id=7, name="0")))
    runs = []

    def increment(connection):
        runs.append(1)
        now = int(connection.scalar(select(ITEM.c.name).where(ITEM.c.id == 7)))
        if len(runs) == 1:
            run_transaction(other, increment)
        connection.execute(update(ITEM).where(ITEM.c.id == 7).values(name=str(now + 1)))

    run_transaction(engine, increment)
    with engine.connect() as connection:
        assert connection.scalar(select(ITEM.c.name)) == "2"
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    assert len(runs) == 3
    engine.dispose()
    other.dispose()


def test_deadlocks_are_repeated(database):
    """Two units that lock in opposite order: the victim runs again, both are committed."""
    engines = [lambdadb.create_engine(database) for _ in range(2)]
    run_transaction(
        engines[0], lambda c: c.execute(insert(ITEM), [{"id": i, "name": str(i)} for i in (1, 2)])
    )
    both_locked = threading.Barrier(2)
    waited = [False, False]

    def swap(number):
        def work(connection):
            first, second = (1, 2) if number == 0 else (2, 1)
            connection.execute(update(ITEM).where(ITEM.c.id == first).values(name=ITEM.c.name + "x"))
            if not waited[number]:
                waited[number] = True
                both_locked.wait(10)
            connection.execute(update(ITEM).where(ITEM.c.id == second).values(name=ITEM.c.name + "y"))

        run_transaction(engines[number], work)

    threads = [threading.Thread(target=swap, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engines[0].connect() as connection:
        names = connection.scalars(select(ITEM.c.name)).all()
    assert all(sorted(name[1:]) == ["x", "y"] for name in names)
    for engine in engines:
        engine.dispose()


def test_a_read_only_node_is_left_for_another(mode, database):
    """25006, the old writer after a failover: the connection is not used again, the work is."""
    seen = []

    def work(connection):
        seen.append(connection.scalar(text("SELECT pg_backend_pid()")))
        if len(seen) == 1:
            connection.execute(text("SET TRANSACTION READ ONLY"))
        return add("a")(connection)

    def steps():
        engine = mode.create_engine(database)
        assert run_transaction(engine, work) == 1
        engine.dispose()

    mode.run(steps)
    assert len(set(seen)) == 2


def test_repeating_ends_with_the_time(mode, database):
    """What never succeeds is raised as what it is when the time is over."""

    def work(connection):
        connection.execute(text("SET TRANSACTION READ ONLY"))
        add("a")(connection)

    def steps():
        # Each connect has this time too: a busy machine needs some of it.
        engine = mode.create_engine(database, retry=ResumeRetry(timeout=2.0))
        with pytest.raises(OperationalError.__mro__[1], match="read-only"):
            run_transaction(engine, work)
        engine.dispose()

    mode.run(steps)


def test_swallowing_a_failed_statement_is_an_error(mode, database):
    """PostgreSQL would answer that COMMIT with a silent rollback."""

    def work(connection):
        add("a")(connection)
        try:
            connection.execute(text("SELECT 1/0"))
        except Exception:
            return "all is well"

    def steps():
        engine = mode.create_engine(database)
        with pytest.raises(TransactionEnded):
            run_transaction(engine, work)
        assert count(engine) == 0
        engine.dispose()

    mode.run(steps)


def test_committing_inside_the_work_is_an_error(mode, database):
    """A unit that commits by itself could be doubled by a repetition."""

    def steps():
        engine = mode.create_engine(database)
        with pytest.raises(TransactionEnded):
            run_transaction(engine, lambda connection: connection.execute(text("COMMIT")))
        engine.dispose()

    mode.run(steps)


def test_a_marker_lets_a_unit_happen_once(mode, database):
    """A second unit with the same marker does nothing and says so."""

    def steps():
        engine = mode.create_engine(database)
        marker = (ITEM.c.name, "request-1")
        run_transaction(engine, add("a"), idempotency_key=marker)
        with pytest.raises(IntegrityError):
            run_transaction(engine, add("b"), idempotency_key=marker)
        assert count(engine) == 2
        engine.dispose()

    mode.run(steps)


def test_sessions_of_the_orm_work_too(database):
    """A sessionmaker: the work gets a Session, which is flushed and committed."""
    engine = lambdadb.create_engine(database)
    run_transaction(sessionmaker(engine), lambda session: session.execute(insert(ITEM).values(name="a")))
    assert count(engine) == 1
    engine.dispose()


def test_the_decorator_passes_arguments_on(database):
    """`@transactional(engine)`: the connection comes first, the caller's arguments after it."""
    engine = lambdadb.create_engine(database)

    @transactional(engine)
    def place(connection, name, *, twice=False):
        """Place it."""
        return [add(name)(connection)] * (2 if twice else 1)

    assert place("a", twice=True) == [1, 1]
    assert place.__doc__ == "Place it."
    engine.dispose()


def test_asynchronous_units(database, sessions):
    """The asynchronous door: AsyncConnection and AsyncSession, repeated by the same code."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    async def main():
        engine = aio.create_async_engine(database)
        runs = []

        async def on_connection(connection):
            runs.append(1)
            await connection.execute(insert(ITEM).values(name="a"))
            if len(runs) == 1:
                sessions.terminate()
            return (await connection.execute(ROWS)).scalar()

        async def on_session(session):
            await session.execute(insert(ITEM).values(name="b"))
            return await session.scalar(ROWS)

        assert await aio.run_transaction(engine, on_connection) == 1
        assert await aio.run_transaction(async_sessionmaker(engine), on_session) == 2
        assert len(runs) == 2
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [None, "engine", sessionmaker()])
def test_a_foreign_target_is_refused(wrong):
    """Only an engine of lambdadb knows how to ask about a transaction."""
    with pytest.raises(InvalidSettings, match="lambdadb"):
        run_transaction(wrong, print)
