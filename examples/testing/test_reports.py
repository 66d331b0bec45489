"""What the function of reports.py promises to its cluster, and to its callers."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from lambdadb.testing import (
    AuroraCluster,
    Database,
    Invoke,
    LambdaContext,
    Sessions,
    SpanRecorder,
    VirtualTime,
)

HANDLER = "reports.lambda_handler"
EVENT = {"version": "2.0", "requestContext": {"http": {"method": "GET"}}}


def test_it_lets_the_cluster_pause(
    aurora_cluster: AuroraCluster, invoke: Invoke, assert_no_sessions_left: Callable[[], None]
) -> None:
    assert invoke(HANDLER, EVENT)["body"] == "0"
    assert_no_sessions_left()
    aurora_cluster.pause()  # fails if a connection keeps it awake, and says whose


@pytest.mark.parametrize("shape", ["hold", "starting", "close"])
def test_it_waits_for_the_cluster(aurora_cluster: AuroraCluster, invoke: Invoke, shape: str) -> None:
    aurora_cluster.resume(shape=shape, seconds=0.5)
    assert invoke(HANDLER, EVENT)["statusCode"] == 200


def test_it_answers_503_in_time(
    aurora_cluster: AuroraCluster, invoke: Invoke, lambda_context: LambdaContext
) -> None:
    aurora_cluster.resume(seconds=15.0)
    lambda_context.seconds_left = 3.0
    assert invoke(HANDLER, EVENT)["statusCode"] == 503


def test_a_long_resume_takes_no_time(
    aurora_cluster: AuroraCluster,
    invoke: Invoke,
    no_waiting: Callable[[], AbstractContextManager[VirtualTime]],
) -> None:
    aurora_cluster.resume(seconds=25.0)
    with no_waiting() as time:
        assert invoke(HANDLER, EVENT, in_process=True)["statusCode"] == 200
    assert time.waited > 20.0


def test_it_reads_in_one_statement(postgres: Database, invoke: Invoke, spans: SpanRecorder) -> None:
    postgres.query("INSERT INTO orders (item) VALUES (%s)", "book")
    spans.watch(invoke.module(HANDLER).engine)
    assert invoke(HANDLER, EVENT, in_process=True)["body"] == "1"
    assert [span.attributes["db.query.text"] for span in spans.named("statement")] == [
        "SELECT count(*) FROM orders"
    ]


def test_it_connects_again_after_a_failover(
    postgres: Database, invoke: Invoke, sessions: Sessions
) -> None:
    invoke(HANDLER, EVENT)
    sessions.terminate()
    assert invoke(HANDLER, EVENT)["statusCode"] == 200
