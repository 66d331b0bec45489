"""`checkout_timeout`: a checkout waits for a connection, never on an event loop and never for itself."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from sqlalchemy import text

import lambdadb
import lambdadb.pool
from lambdadb import ConnectionInUse, PerEnvironment, PerInvocation, ResumeRetry, aio
from lambdadb.lab.context import LambdaContext

ONE = text("SELECT 1")
LONG = 60.0


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("kind", [PerEnvironment, PerInvocation])
def test_threads_wait_for_each_other(kind, connections, database, sessions):
    """Six threads on one or two connections: all of them get their turn, with that many sessions."""
    policy = kind(connections=connections, checkout_timeout=LONG)
    # A connect that takes long would have a second attempt, and so a second session.
    engine = lambdadb.create_engine(database, policy=policy, retry=ResumeRetry(hedge_after=LONG))
    most, results, errors = [], [], []

    def use():
        try:
            with engine.connect() as connection:
                results.append(connection.scalar(text("SELECT 1 FROM pg_sleep(0.01)")))
                most.append(len(sessions()))
        except Exception as error:
            errors.append(error)

    with lambdadb.invocation(engine):
        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (results, errors) == ([1] * 6, [])
    assert max(most) <= connections
    engine.dispose()


@pytest.mark.parametrize("connections", [1, 2])
def test_tasks_wait_on_the_loop(connections, database):
    """`asyncio.gather` of six tasks: all get their turn, and the loop goes on meanwhile."""

    async def main():
        policy = PerEnvironment(connections=connections, checkout_timeout=LONG)
        engine = aio.create_async_engine(database, policy=policy)
        turns = 0

        async def use():
            async with engine.connect() as connection:
                return await connection.scalar(text("SELECT 1 FROM pg_sleep(0.01)"))

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert await asyncio.gather(*[use() for _ in range(6)]) == [1] * 6
        counting.cancel()
        assert turns > 6
        await engine.dispose()

    asyncio.run(main())


def test_who_would_wait_for_himself_is_told_at_once(mode, database):
    """The same thread or task has the connection: no wait could help, and the holder is named."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(checkout_timeout=LONG))
        began = time.monotonic()
        with engine.connect(), pytest.raises(ConnectionInUse, match=r"in use by steps \(test_checkout"):
            engine.connect()
        assert time.monotonic() - began < LONG / 2
        engine.dispose()

    mode.run(steps)


def hold(engine, there, gate):
    with engine.connect():
        there.set()
        gate.wait(LONG)


@pytest.mark.parametrize("bound", ["policy", "invocation"])
def test_the_wait_ends_with_the_policys_time_or_the_invocations(bound, database):
    """Whichever is shorter; the message says how long it was."""
    timeout = 0.1 if bound == "policy" else LONG
    engine = lambdadb.create_engine(database, policy=PerEnvironment(checkout_timeout=timeout))
    there, gate = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(engine, there, gate))
    thread.start()
    there.wait(LONG)
    began = time.monotonic()
    context = LambdaContext(1.3) if bound == "invocation" else LambdaContext(LONG)
    with (
        lambdadb.invocation(engine, context),
        pytest.raises(ConnectionInUse, match=r"in use after 0\.\d s"),
    ):
        engine.connect()
    assert time.monotonic() - began < LONG / 2
    gate.set()
    thread.join()
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1
    engine.dispose()


def test_a_cancelled_wait_passes_its_turn_on(database):
    """Whoever is cancelled, also in the moment in which it is woken, takes nobody's turn."""

    async def main():
        policy = PerEnvironment(checkout_timeout=LONG)
        engine = aio.create_async_engine(database, policy=policy)

        async def use():
            async with engine.connect() as connection:
                return await connection.scalar(ONE)

        for rounds in range(30):
            holding = await engine.connect()
            waiting = [asyncio.create_task(use()) for _ in range(3)]
            for _ in range(rounds % 5):
                await asyncio.sleep(0)
            closing = asyncio.create_task(holding.close())
            for _ in range(rounds // 5):
                await asyncio.sleep(0)
            waiting[0].cancel()
            await closing
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert results[1:] == [1, 1]
        assert engine.pool.checkedout() == 0
        await engine.dispose()

    asyncio.run(main())


def test_the_end_of_an_invocation_ends_the_wait(database):
    """A thread that still waits then is told; it does not connect after its invocation."""
    engine = lambdadb.create_engine(database, policy=PerEnvironment(checkout_timeout=LONG))
    errors, waits = [], threading.Event()

    def wait():
        waits.set()
        try:
            engine.connect().close()
        except Exception as error:
            errors.append(error)

    with lambdadb.invocation(engine):
        held = engine.connect()
        thread = threading.Thread(target=wait)
        thread.start()
        waits.wait(LONG)
        while not len(engine.pool._waiters):
            time.sleep(0.001)
    thread.join(LONG)
    assert [type(error) for error in errors] == [lambdadb.pool._SlotTaken]
    held.close()
    engine.dispose()
