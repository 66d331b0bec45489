"""When connections are opened and closed, as the server itself sees it."""

from __future__ import annotations

import gc
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import lambdadb
from lambdadb import ConnectionInUse, PerEnvironment, PerInvocation

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
PID = text("SELECT pg_backend_pid()")


@POLICIES
def test_building_an_engine_opens_nothing(policy, road, database, sessions):
    """Module scope has no time to wait: the first checkout connects."""
    sessions.become(0)
    road.create_engine(database, policy=policy)
    assert sessions() == []


def test_an_environment_keeps_one_session(road, database, sessions):
    """Invocation after invocation uses the same session of the server."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment())
        pids = []
        for _ in range(3):
            with road.invocation(engine), Session(engine) as session:
                pids.append(session.scalar(PID))
        assert [pid for pid, *_ in sessions.become(1)] == [pids[0]]
        assert pids == [pids[0]] * 3
        engine.dispose()

    road.run(steps)
    sessions.become(0)


def test_an_invocation_leaves_no_session(road, database, sessions):
    """One session for all of one invocation, none after it, another in the next."""

    def steps():
        engine = road.create_engine(database, policy=PerInvocation())
        seen = []
        for _ in range(2):
            with road.invocation(engine):
                pids = set()
                for _ in range(3):
                    with engine.begin() as connection:
                        pids.add(connection.scalar(PID))
                assert len(pids) == 1
                assert sessions.become(1)
                seen.append(pids)
            sessions.become(0)
        assert seen[0] != seen[1]

    road.run(steps)


def test_outside_an_invocation_a_session_ends_with_its_checkout(road, database, sessions):
    """A script without `handler` leaves nothing behind either."""

    def steps():
        engine = road.create_engine(database, policy=PerInvocation())
        with engine.connect() as connection:
            connection.execute(PID)
            assert sessions.become(1)
        sessions.become(0)

    road.run(steps)


@POLICIES
def test_a_failed_invocation_ends_like_any_other(policy, road, database, sessions):
    """An exception leaves no transaction open and no session more than the policy keeps."""

    def steps():
        engine = road.create_engine(database, policy=policy)
        with pytest.raises(ZeroDivisionError), road.invocation(engine), engine.begin() as connection:  # noqa: PT012
            connection.execute(text("INSERT INTO item (name) VALUES ('lost')"))
            _ = 1 / 0
        left = sessions.become(1 if policy.keeps else 0)
        assert all(state == "idle" for *_, state in left)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        engine.dispose()

    road.run(steps)


@POLICIES
def test_a_second_checkout_is_refused_and_names_the_holder(policy, road, database, sessions):
    """Two transactions are never mixed: the second is an error, and the first goes on unharmed."""

    def place_order(engine):
        return engine.connect()

    def steps():
        engine = road.create_engine(database, policy=policy)
        first = place_order(engine)
        first.execute(text("INSERT INTO item (name) VALUES ('kept')"))
        with pytest.raises(ConnectionInUse, match=r"place_order \(test_policies.py:\d+\)") as caught:
            engine.connect()
        assert f"{type(policy).__name__}(connections=2)" in str(caught.value)
        first.commit()
        first.close()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 1
        engine.dispose()

    road.run(steps)


def test_eight_threads_at_first_use_open_one_session(database, sessions):
    """While one thread connects, the others are refused: there is never a second connection."""
    engine = lambdadb.create_engine(database)
    barrier, got, refused = threading.Barrier(8), [], []

    def use():
        barrier.wait()
        try:
            connection = engine.connect()
        except ConnectionInUse as error:
            refused.append(error)
        else:
            got.append(connection)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert sessions.become(1)
    got[0].close()
    engine.dispose()


def test_a_second_connection_can_be_allowed(road, database, sessions):
    """`connections=2`: a log that must survive the rollback has a transaction of its own."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment(connections=2))
        with engine.connect() as main, engine.connect() as log:
            main.execute(text("INSERT INTO item (name) VALUES ('work')"))
            log.execute(text("INSERT INTO item (name) VALUES ('log')"))
            log.commit()
            main.rollback()
            with pytest.raises(ConnectionInUse, match="connections=3"):
                engine.connect()
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT name FROM item")).all() == ["log"]
        assert sessions.become(2)
        engine.dispose()

    road.run(steps)


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
        assert "forget (test_policies.py" in caplog.text
        with road.invocation(engine), engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        forgotten.close()
        with road.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        engine.dispose()

    road.run(steps)


def test_a_session_left_to_the_garbage_collector_comes_back(database, sessions):
    """A session that nobody refers to any more does not block the engine."""
    engine = lambdadb.create_engine(database)
    session = Session(engine)
    session.execute(PID)
    del session
    gc.collect()
    with engine.connect() as connection:
        connection.execute(PID)
    assert sessions.become(1)
    engine.dispose()


@POLICIES
def test_dispose_while_a_connection_is_out_closes_it_when_it_comes_back(
    policy, road, database, sessions
):
    """`dispose()` never pulls a connection from under its holder, and never forgets it."""

    def steps():
        engine = road.create_engine(database, policy=policy)
        connection = engine.connect()
        engine.dispose()
        connection.execute(PID)
        connection.close()
        sessions.become(0)

    road.run(steps)


def test_a_failed_first_connect_can_be_repeated(road, database, sessions):
    """An error while connecting gives the slot back."""

    def steps():
        engine = road.create_engine(database, connect_args={"dbname": "missing"})
        for _ in range(2):
            with pytest.raises(Exception, match="missing"):
                engine.connect()
        assert "1 free" in engine.pool.status()

    road.run(steps)
