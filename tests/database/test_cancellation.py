"""A connect that is cancelled at any moment ends at once, and leaves no session, socket or reader."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import time

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from lambdadb import ResumeRetry, aio
from lambdadb.loop_clock import LoopClock

LONG = 60.0


class Store:
    """An asynchronous store of logins that takes some turns of the loop."""

    def __init__(self, password):
        self._password = password

    async def logins(self, parameters):
        for _ in range(3):
            await asyncio.sleep(0)
        yield {"password": self._password}


@pytest.mark.parametrize("store", [False, True], ids=["url", "store"])
@pytest.mark.parametrize("how", ["cancel", "wait_for"])
def test_a_connect_cancelled_at_any_turn_of_the_loop_ends(how, store, database, sessions):
    """`task.cancel()` and `asyncio.wait_for` at every turn: cancelled, and the next connect works."""
    keywords = {"credentials": Store(database.password)} if store else {}
    url = database._replace(password=None) if store else database

    async def connect(engine):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def connect_bounded(engine):
        await (asyncio.wait_for(connect(engine), LONG) if how == "wait_for" else connect(engine))

    async def cancel_at(turn):
        engine = aio.create_async_engine(url, **keywords)
        task = asyncio.ensure_future(connect_bounded(engine))
        for _ in range(turn):
            await asyncio.sleep(0)
        began = time.monotonic()
        cancelled = task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - began < LONG / 2
        # Before Python 3.12, asyncio.wait_for loses a cancellation that comes together with the result.
        # psycopg 3.2 waits with it too.
        waits_for = how == "wait_for" or psycopg.__version__ < "3.3"
        lost = waits_for and sys.version_info < (3, 12) and result is None
        assert lost or isinstance(result, asyncio.CancelledError) is cancelled, turn
        # SQLAlchemy closes a connection in a task of its own, which a cancellation leaves behind.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        assert engine.pool.checkedout() == 0
        loop = asyncio.get_running_loop()
        assert len(loop._selector.get_map()) == 1  # the loop's own
        await connect(engine)
        await engine.dispose()
        return cancelled

    async def main():
        turn = 0
        while await cancel_at(turn):
            turn += 1
        return turn

    assert asyncio.run(main()) > 5
    sessions.become(0)


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_a_cancellation_together_with_the_answer_is_not_lost(late):
    """The socket becomes readable in the very turn in which the wait is cancelled."""

    async def main():
        reader, writer = socket.socketpair()
        with reader, writer:
            task = asyncio.ensure_future(
                greenlet_spawn(LoopClock().wait, {reader.fileno(): selectors.EVENT_READ}, LONG)
            )
            await asyncio.sleep(0)
            writer.send(b"!")
            for _ in range(late):
                await asyncio.sleep(0)
            cancelled = task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError) is cancelled

    asyncio.run(main())


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_a_store_that_answers_while_it_is_cancelled_loses_no_cancellation(late):
    """`LoopClock.awaited`: what it awaits is cancelled too, and the cancellation arrives."""

    async def main():
        answer, ended = asyncio.get_running_loop().create_future(), []

        async def ask():
            try:
                return await answer
            finally:
                ended.append(True)

        task = asyncio.ensure_future(greenlet_spawn(LoopClock().awaited, ask, LONG))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answer.set_result(1)
        for _ in range(late):
            await asyncio.sleep(0)
        cancelled = task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError) is cancelled
        await asyncio.sleep(0)
        assert ended == [True]

    asyncio.run(main())


def test_a_wait_for_a_server_that_never_answers_can_be_cancelled(database):
    """`asyncio.wait_for` around a connect that would wait for a minute."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            engine = aio.create_async_engine(
                database.set(host="127.0.0.1", port=port), retry=ResumeRetry(timeout=LONG)
            )
            began = time.monotonic()
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(engine.connect(), 0.2)
            assert time.monotonic() - began < LONG / 2
            assert engine.pool.checkedout() == 0

    asyncio.run(main())
