"""The ASGI middleware, by the protocol alone: no framework."""

from __future__ import annotations

import asyncio
import json
import time

import psycopg
import pytest
import sqlalchemy

from lambdadb import ConnectFailed, Fault, InvalidSettings, create_engine
from lambdadb.aio import create_async_engine
from lambdadb.asgi import InvocationMiddleware
from lambdadb.lab.context import LambdaContext

URL = "postgresql+psycopg://app@db.example/orders"
HTTP = {"type": "http", "path": "/"}


@pytest.fixture(params=["sync", "async"])
def engine(request):
    return create_engine(URL) if request.param == "sync" else create_async_engine(URL)


def serve(application, scope, engine):
    """The messages that are sent for one request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(InvocationMiddleware(application, engines=[engine])(scope, receive, send))
    return sent


def failing(retry_after=7, *, begun=False):
    async def application(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ConnectFailed(
            "full",
            fault=Fault.EXHAUSTED,
            waited=1.0,
            attempts=2,
            orig=psycopg.OperationalError(""),
            retry_after=retry_after,
        )

    return application


def test_a_request_runs_inside_an_invocation(engine):
    """With the deadline of the context that Mangum puts into the scope; nothing is left after it."""
    seen = []

    async def application(scope, receive, send):
        seen.append((engine.pool.invocations.active, engine.pool.invocations.deadline is not None))

    serve(application, {**HTTP, "aws.context": LambdaContext()}, engine)
    serve(application, HTTP, engine)
    assert seen == [(True, True), (True, False)]
    assert not engine.pool.invocations.active


@pytest.mark.parametrize(
    ("header", "in_lambda", "has_deadline"),
    [
        ({"deadline": 1.9e12, "invoked_function_arn": "arn:aws:lambda:x:1:function:f:live"}, True, True),
        ({"deadline": 1.9e12}, False, False),
        ({"request_id": "1"}, True, False),
        ("soon", True, False),
    ],
)
def test_the_lambda_web_adapter_sends_the_deadline_in_a_header(
    header, in_lambda, has_deadline, monkeypatch
):
    """It is used in Lambda alone, and only if it is the adapter's."""
    if in_lambda:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    engine = create_engine(URL)
    seen = []

    async def application(scope, receive, send):
        seen.append(engine.pool.invocations.deadline)

    headers = [(b"x-amzn-lambda-context", json.dumps(header).encode())]
    serve(application, {**HTTP, "headers": headers}, engine)
    assert [deadline is not None for deadline in seen] == [has_deadline]
    if has_deadline:
        wait = seen[0].at - time.monotonic()
        assert wait == pytest.approx(1.9e9 - time.time(), abs=60.0)


def test_a_database_that_is_not_ready_is_503_with_retry_after(engine):
    """As `handler(engine, on_resuming="503")` answers events."""
    start, body = serve(failing(), HTTP, engine)
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"7"
    assert json.loads(body["body"])["retryAfter"] == 7
    assert not engine.pool.invocations.active


@pytest.mark.parametrize("application", [failing(None), failing(begun=True)])
def test_what_a_503_cannot_say_is_raised(application, engine):
    """Where another try would not help, and where the answer has begun."""
    with pytest.raises(ConnectFailed):
        serve(application, HTTP, engine)


def test_what_is_not_http_passes_through(engine):
    """Lifespan events and web sockets are no invocations."""
    seen = []

    async def application(scope, receive, send):
        seen.append(engine.pool.invocations.active)

    serve(application, {"type": "lifespan"}, engine)
    assert seen == [False]


def test_a_foreign_engine_is_refused_while_the_application_is_built():
    """Not at the first request."""
    with pytest.raises(InvalidSettings, match=r"lambdadb\.create_engine"):
        InvocationMiddleware(failing(), engines=[sqlalchemy.create_engine(URL)])
