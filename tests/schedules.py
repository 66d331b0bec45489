"""
Random schedules of what threads or tasks, operators and Lambda do, against a model of the rows.

The same on every database: a server has the URL `url`, an `insert` statement, `rows()`, `empty()`,
`count()` of sessions, `become(count)` that waits for it, and `terminate()` that ends all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util import greenlet_spawn

import lambdadb
from lambdadb import ConnectionInUse, aio

ACTORS = st.sampled_from([0, 1])


class Threads:
    """Two threads; a step runs in one of them."""

    def __init__(self, database, policy):
        self.engine = self.shown = lambdadb.create_engine(database, policy=policy)
        self.threads = [ThreadPoolExecutor(1) for _ in range(2)]

    def run(self, actor, step):
        return self.threads[actor].submit(step).result(20)

    def invocation(self):
        around = lambdadb.invocation(self.engine)
        around.__enter__()
        return lambda: around.__exit__(None, None, None)

    def close(self):
        self.engine.dispose()
        for thread in self.threads:
            thread.shutdown()


class Tasks:
    """Tasks of one loop; a step runs in one of its own."""

    def __init__(self, database, policy):
        self.loop = asyncio.new_event_loop()
        self.shown = aio.create_async_engine(database, policy=policy)
        self.engine = self.shown.sync_engine

    def run(self, actor, step):
        return self.loop.run_until_complete(greenlet_spawn(step))

    def invocation(self):
        around = lambdadb.invocation(self.shown)
        self.loop.run_until_complete(around.__aenter__())
        return lambda: self.loop.run_until_complete(around.__aexit__(None, None, None))

    def close(self):
        self.run(0, self.engine.dispose)
        self.loop.close()


def schedule(kind, policy, server):
    """The state machine: what is held, begun and committed, and the world that has to match it."""
    numbers = itertools.count(1)

    class Schedule(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.world = kind(server.url, policy)
            self.actor, self.connection = 0, None  # who holds the connection
            self.begun, self.committed = set(), set()
            self.began_inside = False  # whether an invocation ran when it was checked out
            self.killed = False  # the session was ended while it was held
            self.leave = None  # ends the invocation that runs

        def do(self, step):
            """One step of the holder; on a killed session it may fail, and nothing is held any more."""
            try:
                return self.world.run(self.actor, step)
            except SQLAlchemyError:
                assert self.killed, "an error although nobody ended the session"
                self.world.run(self.actor, self.connection.close)
                self.let_go()
                return FAILED

        def let_go(self):
            self.connection, self.begun, self.killed = None, set(), False

        @rule(actor=ACTORS)
        def check_out(self, actor):
            if self.connection is None:
                self.actor = actor
                self.connection = self.world.run(actor, self.world.engine.connect)
                self.began_inside = self.leave is not None
            else:
                with pytest.raises(ConnectionInUse):
                    self.world.run(actor, self.world.engine.connect)

        @precondition(lambda self: self.connection)
        @rule()
        def insert(self):
            name = str(next(numbers))
            statement = server.insert.bindparams(name=name)
            if self.do(lambda: self.connection.execute(statement)) is not FAILED:
                self.begun.add(name)

        @precondition(lambda self: self.connection)
        @rule()
        def commit(self):
            begun = set(self.begun)
            if self.do(self.connection.commit) is not FAILED:
                self.committed |= begun
                self.begun = set()

        @precondition(lambda self: self.connection)
        @rule()
        def roll_back(self):
            if self.do(self.connection.rollback) is not FAILED:
                self.begun = set()

        @precondition(lambda self: self.connection)
        @rule()
        def check_in(self):
            if self.do(self.connection.close) is not FAILED:
                self.let_go()

        @rule()
        def kill(self):
            """An operator, a failover, or the idle timeout of a frozen environment."""
            server.terminate()
            self.killed = self.connection is not None

        @precondition(lambda self: self.leave is None)
        @rule()
        def begin_invocation(self):
            self.leave = self.world.invocation()

        @precondition(lambda self: self.leave)
        @rule()
        def end_invocation(self):
            """What began inside and is still held is rolled back and closed; a test's own goes on."""
            self.leave()
            self.leave = None
            if self.connection is not None and not self.began_inside:
                return
            if self.connection is not None or not policy.keeps:
                server.become(0)
            if self.connection is not None:
                self.world.run(self.actor, self.connection.close)
                self.let_go()

        @invariant()
        def rows_are_those_committed(self):
            assert set(server.rows()) == self.committed

        @invariant()
        def there_is_one_session_at_most(self):
            end = time.monotonic() + 10
            while (found := server.count()) > 1:
                assert time.monotonic() < end, found

        def teardown(self):
            if self.connection is not None:
                self.check_in()
            if self.leave is not None:
                self.end_invocation()
            self.world.close()
            server.become(0)
            server.empty()
            server.become(0)

    return Schedule


FAILED = object()
