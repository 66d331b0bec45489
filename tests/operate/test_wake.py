"""`lambdadb.wake` and `lambdadb wake` on an emulated cluster that pauses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy
from click.testing import Result
from sqlalchemy import Engine

import lambdadb
import lambdadb.aio
from lambdadb import InvalidSettings
from lambdadb.lab.aurora import Cluster, Shape
from lambdadb.lab.aurora.cluster import State
from lambdadb.lab.postgres import Postgres

from ..waiting import wait_until

RESUME = 1.0


@pytest.fixture(scope="module")
def sleeper() -> Iterator[Postgres]:
    """A server that clusters stop and start."""
    with Postgres(password="canary-wake-77") as server:
        yield server


@pytest.fixture(params=[Shape.HOLD, Shape.REFUSE, Shape.STARTING, Shape.CLOSE])
def paused(sleeper: Postgres, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A paused cluster, in shapes of a resume."""
    with Cluster(sleeper, auto_pause=600.0, resume=RESUME, shape=request.param, paused=True) as cluster:
        yield cluster


def await_state(cluster: Cluster, state: State) -> None:
    wait_until(lambda: cluster.state is state, 60)


def test_waking(paused: Cluster) -> None:
    """It returns before the resume ends, says when that will be, and the resume goes on by itself."""
    engine = lambdadb.create_engine(paused.url())
    first = lambdadb.wake(engine, within=0.2)
    assert first.state == "resuming"
    assert first.retry_after is not None
    assert 10 <= first.retry_after <= 15
    await_state(paused, State.AVAILABLE)
    assert lambdadb.wake(engine, within=30.0).awake
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]


@pytest.fixture
def awake(sleeper: Postgres) -> Iterator[Cluster]:
    with Cluster(sleeper, auto_pause=600.0, resume=RESUME) as cluster:
        yield cluster


def test_waking_on_an_event_loop(awake: Cluster) -> None:
    """The same, awaited; each of the two functions refuses the other's engine."""
    engine = lambdadb.aio.create_async_engine(awake.url())
    assert asyncio.run(lambdadb.aio.wake(engine, within=30.0)).awake
    with pytest.raises(InvalidSettings, match=r"lambdadb\.aio\.wake"):
        lambdadb.wake(engine)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettings, match=r"use lambdadb\.wake"):
        asyncio.run(lambdadb.aio.wake(lambdadb.create_engine(awake.url())))  # type: ignore[arg-type]


def test_another_engine() -> None:
    """One that lambdadb has not made is refused."""
    with pytest.raises(InvalidSettings, match="use an engine of lambdadb"):
        lambdadb.wake(sqlalchemy.create_engine("sqlite://"))


def test_a_wrong_password_is_an_error(awake: Cluster) -> None:
    """It woke the cluster, and only a change can help."""
    engine: Engine = lambdadb.create_engine(awake.url().replace("canary-wake-77", "canary-wrong"))
    with pytest.raises(lambdadb.ConnectFailed) as caught:
        lambdadb.wake(engine, within=30.0)
    assert caught.value.fault is lambdadb.Fault.CREDENTIALS


def test_the_command_waits(sleeper: Postgres, lambdadb: Callable[..., Result]) -> None:
    """With --wait it ends when the cluster answers; without, it says when that should be."""
    with Cluster(sleeper, auto_pause=600.0, resume=RESUME, paused=True) as cluster:
        begun = lambdadb("wake", cluster.url(), "--json")
        assert begun.exit_code == 0
        assert json.loads(begun.stdout)["state"] in ("resuming", "awake")
        done = lambdadb("wake", cluster.url(), "--wait")
        assert done.exit_code == 0
        assert "awake, after" in done.stdout
        wait_until(lambda: not cluster.sessions())
        refused = lambdadb("wake", cluster.url().replace("canary-wake-77", "canary-wrong"))
        assert refused.exit_code == 1
        assert "canary-wrong" not in refused.output
    assert lambdadb("wake", "oracle://h/d").exit_code == 2
