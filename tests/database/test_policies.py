"""When connections are opened and closed, as the server itself sees it."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import lambdadb
from lambdadb import (
    PerEnvironment,
    PerInvocation,
)

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def engine(database):
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


@POLICIES
def test_building_an_engine_opens_nothing(policy, mode, database, sessions):
    """Module scope has no time to wait: the first checkout connects."""
    sessions.become(0)
    mode.create_engine(database, policy=policy)
    assert sessions() == []


def test_an_environment_keeps_one_session(mode, database, sessions):
    """Invocation after invocation uses the same session of the server."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment())
        pids = []
        for _ in range(3):
            with mode.invocation(engine), Session(engine) as session:
                pids.append(session.scalar(PID))
        assert [pid for pid, *_ in sessions.become(1)] == [pids[0]]
        assert pids == [pids[0]] * 3
        engine.dispose()

    mode.run(steps)
    sessions.become(0)


def test_an_invocation_leaves_no_session(mode, database, sessions):
    """One session for all of one invocation, none after it, another in the next."""

    def steps():
        engine = mode.create_engine(database, policy=PerInvocation())
        seen = []
        for _ in range(2):
            with mode.invocation(engine):
                pids = set()
                for _ in range(3):
                    with engine.begin() as connection:
                        pids.add(connection.scalar(PID))
                assert len(pids) == 1
                assert sessions.become(1)
                seen.append(pids)
            sessions.become(0)
        assert seen[0] != seen[1]

    mode.run(steps)


def test_outside_an_invocation_a_session_ends_with_its_checkout(mode, database, sessions):
    """A script without `handler` leaves nothing behind either."""

    def steps():
        engine = mode.create_engine(database, policy=PerInvocation())
        with engine.connect() as connection:
            connection.execute(PID)
            assert sessions.become(1)
        sessions.become(0)

    mode.run(steps)


@POLICIES
def test_a_failed_invocation_ends_like_any_other(policy, mode, database, sessions):
    """An exception leaves no transaction open and no session more than the policy keeps."""

    def steps():
        engine = mode.create_engine(database, policy=policy)
        with pytest.raises(ZeroDivisionError), mode.invocation(engine), engine.begin() as connection:  # noqa: PT012
            connection.execute(text("INSERT INTO item (name) VALUES ('lost')"))
            _ = 1 / 0
        left = sessions.become(1 if policy.keeps else 0)
        assert all(state == "idle" for *_, state in left)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        engine.dispose()

    mode.run(steps)
