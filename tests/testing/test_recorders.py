"""Recorders of spans and of X-Ray's segments, virtual time, and the Data API."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import text

import lambdadb
import lambdadb.aio
from lambdadb.lab import LabError
from lambdadb.tracing.xray import XRay

ONE = text("SELECT 1")


def connect_once(url, mode, **settings):
    """Connect and ask, with a synchronous or an asynchronous engine."""
    if mode == "sync":
        engine = lambdadb.create_engine(url, **settings)
        with engine.connect() as connection:
            connection.execute(ONE)
        engine.dispose()
        return

    async def steps():
        engine = lambdadb.aio.create_async_engine(url, **settings)
        async with engine.connect() as connection:
            await connection.execute(ONE)
        await engine.dispose()

    asyncio.run(steps())


LONG = pytest.mark.sweep


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("sync", "hold"),
        ("async", "starting"),
        pytest.param("async", "hold", marks=LONG),
        pytest.param("sync", "starting", marks=LONG),
        pytest.param("sync", "refuse", marks=LONG),
        pytest.param("async", "refuse", marks=LONG),
    ],
)
def test_a_resume_takes_no_time(aurora_cluster, no_waiting, monkeypatch, mode, shape):
    """The engine and the cluster wait for 40 s of their own time, in none of the test's."""
    # Elsewhere a refusal by this machine means that no server is there.
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    aurora_cluster.resume(shape=shape, seconds=40.0)
    began = time.monotonic()
    with no_waiting() as virtual:
        connect_once(aurora_cluster.url, mode)
    assert 40.0 - (time.monotonic() - began) < virtual.waited < 60.0
    assert aurora_cluster.resumes == 1


def test_an_engine_gives_up_as_late_as_it_would(aurora_cluster, no_waiting):
    """Its deadline is of the same time."""
    aurora_cluster.resume(shape="starting", seconds=40.0)
    retry = lambdadb.ResumeRetry(timeout=20.0)
    with no_waiting() as virtual, pytest.raises(lambdadb.DatabaseResuming):
        connect_once(aurora_cluster.url, "sync", retry=retry)
    assert 15.0 < virtual.waited <= 20.0


def test_time_is_real_again_afterwards(aurora_cluster, no_waiting):
    """What was changed for the test is as before."""
    from lambdadb.deadline import Clock

    before = Clock.wait, Clock.now
    with no_waiting():
        assert (Clock.wait, Clock.now) != before
    assert (Clock.wait, Clock.now) == before


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_spans_of_an_engine_are_kept(postgres, spans, mode):
    """Of one that the test makes with the recorder as its tracer."""
    connect_once(postgres.url, mode, tracer=spans)
    assert len(spans.named("connect")) == 1
    assert [span.attributes["db.query.text"] for span in spans.named("statement")] == ["SELECT ?"]


def test_spans_of_an_engine_that_is_there_are_kept(postgres, spans):
    """A handler's module makes its own engine; it gets its own tracer back."""
    engine = lambdadb.create_engine(postgres.url, policy=lambdadb.PerInvocation())
    spans.watch(engine)
    for _ in range(2):
        with lambdadb.invocation(engine), engine.connect() as connection:
            connection.execute(ONE)
        spans.close()
    assert len(spans.named("connect")) == len(spans.named("statement")) == 1
    import sqlalchemy

    with pytest.raises(LabError, match="create_engine"):
        spans.watch(sqlalchemy.create_engine("sqlite://"))


@pytest.fixture(params=[False, True], ids=["no SDK", "SDK"])
def sdk(request):
    """X-Ray's SDK, which other tests may have imported; the test's fixture comes after it."""
    if request.param:
        import aws_xray_sdk.core  # noqa: F401


def test_segments_reach_the_daemon_of_the_test(sdk, postgres, xray, monkeypatch):
    """X-Ray's own documents, held to its rules, also if X-Ray's SDK was imported before."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root=1-{1:08x}-{2:024x};Parent={3:016x};Sampled=1")
    connect_once(postgres.url, "sync", tracer=XRay())
    assert any("connect" in str(document) for document in xray.wait(1))
    assert xray.problems == []


def test_the_data_api_wakes_the_cluster(aurora_cluster, data_api, no_waiting):
    """An engine finds it by the variables of the test; the cluster behind it was paused."""
    import os

    with no_waiting():
        connect_once(os.environ["DATABASE_URL"], "sync")
    assert aurora_cluster.resumes == 1
    assert data_api.calls
