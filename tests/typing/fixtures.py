"""Tests with the fixtures of the pytest plugin, and an engine that somebody else made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from typing_extensions import assert_type

from lambdadb import create_engine
from lambdadb.attach import attach
from lambdadb.testing import (
    AuroraCluster,
    Database,
    Databases,
    Invoke,
    LambdaContext,
    MariaDBDatabase,
    Session,
    Sessions,
    SpanRecorder,
    VirtualTime,
    no_waiting,
    open_postgres,
)

engine = create_engine("postgresql+psycopg://app@host/orders")
attach(sqlalchemy.create_engine("postgresql+psycopg://app@host/orders"), to=engine)
attach(create_async_engine("postgresql+psycopg://app@host/orders"), to=engine)


def check_the_function(
    aurora_cluster: AuroraCluster,
    postgres: Database,
    mariadb: MariaDBDatabase,
    invoke: Invoke,
    lambda_context: LambdaContext,
    sessions: Sessions,
    spans: SpanRecorder,
    assert_no_sessions_left: Callable[[], None],
    virtual: Callable[[], AbstractContextManager[VirtualTime]],
) -> None:
    """What a test does with them."""
    aurora_cluster.resume(shape="starting", seconds=3)
    lambda_context.seconds_left -= 27.5
    answer: dict[str, Any] = invoke("orders.lambda_handler", {"item": "book"})
    assert answer == {"id": 1}
    with virtual() as time:
        invoke(lambda event, context: (event, context), in_process=True)
    assert_type(time.waited, float)
    assert_type(sessions.become(1), list[Session])
    assert_type(postgres.query("SELECT 1"), list[tuple[Any, ...]])
    assert_type(mariadb.url, str)
    assert_type(aurora_cluster.awake_because(), list[str])
    spans.watch(engine)
    assert_no_sessions_left()
    aurora_cluster.pause()


def without_pytest() -> None:
    """The same in another test framework."""
    with open_postgres("embedded") as server:
        databases = Databases(server, lambda url: None)
        cluster = AuroraCluster(databases.take(), "hot", seconds=2.0)
        with no_waiting(cluster) as time:
            assert time.waited == 0.0
        cluster.close()
