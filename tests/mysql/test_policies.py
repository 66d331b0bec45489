"""When connections to MariaDB are opened and closed, and random schedules of threads or tasks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

import lambdadb
from lambdadb import PerEnvironment, PerInvocation

from ..schedules import Tasks, Threads, schedule

POLICIES = pytest.mark.parametrize(
    "policy", [PerEnvironment(), PerInvocation()], ids=["environment", "invocation"]
)
ID = text("SELECT CONNECTION_ID()")


@POLICIES
def test_building_an_engine_opens_nothing(policy, mode, server):
    """Module scope has no time to wait: the first checkout connects."""
    mode.create_engine(server.url, policy=policy)
    assert server.sessions() == []


@POLICIES
def test_sessions_live_as_long_as_the_policy_says(policy, mode, server):
    """One for all invocations, or one for each, and none after it."""

    def steps():
        engine = mode.create_engine(server.url, policy=policy)
        seen = []
        for _ in range(2):
            with lambdadb.invocation(engine):
                for _ in range(2):
                    with engine.begin() as connection:
                        seen.append(connection.scalar(ID))
            server.become(1 if policy.keeps else 0)
        assert len(set(seen)) == (1 if policy.keeps else 2)
        engine.dispose()

    mode.run(steps)
    server.become(0)


@POLICIES
def test_a_failed_invocation_ends_like_any_other(policy, mode, server):
    """An exception leaves no transaction open and no session more than the policy keeps."""

    def steps():
        engine = mode.create_engine(server.url, policy=policy)
        with pytest.raises(ZeroDivisionError), lambdadb.invocation(engine), engine.begin() as connection:  # noqa: PT012
            connection.execute(text("INSERT INTO unit VALUES ('lost')"))
            _ = 1 / 0
        server.become(1 if policy.keeps else 0)
        server.await_no_transaction()
        engine.dispose()

    mode.run(steps)
    assert server.rows() == []


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql", "pymysql"])
@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_urls_of_other_drivers_work(name, driver, server):
    """PyMySQL runs them too, and nothing else is needed."""

    async def ask():
        engine = lambdadb.aio.create_async_engine(
            server.url.replace("mysql+pymysql", f"{name}+{driver}")
        )
        async with engine.connect() as connection:
            answer = (await connection.execute(text("SELECT 1"))).scalar()
        await engine.dispose()
        return answer, engine.url.drivername, engine.dialect.is_mariadb

    assert asyncio.run(ask()) == (1, f"{name}+pymysql", True)


@pytest.mark.timeout(300)
@POLICIES
@pytest.mark.parametrize("kind", [Threads, Tasks])
@pytest.mark.parametrize("examples", [4, pytest.param(60, marks=pytest.mark.sweep)])
def test_any_schedule_keeps_the_rows(kind, policy, examples, server):
    """No schedule loses a committed row, keeps another, mixes two holders or leaves a session behind."""
    run_state_machine_as_test(
        schedule(kind, policy, server),
        settings=settings(max_examples=examples, stateful_step_count=20, deadline=None),
    )
