"""Around one handler call, without a server."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import psycopg
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import (
    ConnectFailed,
    DatabaseResuming,
    Fault,
    InvalidSettings,
    create_engine,
    handler,
    invocation,
)
from lambdadb.aio import create_async_engine
from lambdadb.deadline import ActiveInvocations, RunningInvocation
from lambdadb.lab.context import LambdaContext

URL = "postgresql+psycopg://app@db.example/orders"


def resuming(*_):
    raise DatabaseResuming(
        "waking",
        fault=Fault.RESUMING,
        waited=1.0,
        attempts=2,
        orig=psycopg.OperationalError(""),
        retry_after=14,
    )


@pytest.fixture
def engine():
    return create_engine(URL)


@pytest.fixture
def scope(engine):
    return engine.pool.invocations


def test_inside_the_deadline_is_known_and_outside_it_is_not(engine, scope, clock):
    """The deadline is Lambda's remaining time from the moment of entering."""
    context = LambdaContext(2.5, "arn:aws:lambda:eu-west-1:1:function:orders:prod", now=clock.now)
    with invocation(engine, context, clock=clock):
        assert scope.active
        assert scope.deadline.at == clock.now() + 2.5
        assert scope.alias == "prod"
    assert (scope.active, scope.deadline, scope.alias) == (False, None, "")


def test_without_a_context_only_the_release_remains(engine, scope):
    """In a test or a script there is no context: None is accepted."""
    with invocation(engine):
        assert scope.active
        assert scope.deadline is None


def test_an_inner_invocation_can_only_shorten_the_deadline(engine, scope, clock):
    """Of those that run, the earliest deadline counts; the outer one comes back."""
    with invocation(engine, LambdaContext(5, now=clock.now), clock=clock):
        with invocation(engine, LambdaContext(9, now=clock.now), clock=clock):
            assert scope.deadline.at == clock.now() + 5
        with invocation(engine, LambdaContext(1, now=clock.now), clock=clock):
            assert scope.deadline.at == clock.now() + 1
        assert scope.active
        assert scope.deadline.at == clock.now() + 5


def test_overlapping_invocations_leave_nothing_behind(engine, scope):
    """In a test or a development server they may end in any order."""
    first, second = invocation(engine, LambdaContext(0.4)), invocation(engine, LambdaContext(9))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert scope.active
    second.__exit__(None, None, None)
    assert (scope.active, scope.deadline) == (False, None)


def test_an_error_inside_leaves_nothing_set(engine, scope):
    """A handler that raises leaves the engine as it was."""
    with pytest.raises(ZeroDivisionError), invocation(engine, LambdaContext()):
        _ = 1 / 0
    assert not scope.active


DOUBLES = ["", {}, 3, "context", Mock(), MagicMock(), SimpleNamespace(), object()]


@pytest.mark.parametrize("double", DOUBLES, ids=lambda double: type(double).__name__)
def test_outside_lambda_anything_stands_for_the_context(engine, scope, double):
    """Tests pass what is at hand: no deadline, no alias, no error."""
    with invocation(engine, double):
        assert (scope.active, scope.deadline, scope.alias) == (True, None, "")
    assert handler(engine)(lambda event, context: event)({"a": 1}, double) == {"a": 1}


@pytest.mark.parametrize("wrong", DOUBLES, ids=lambda double: type(double).__name__)
def test_in_lambda_a_wrong_context_is_named(monkeypatch, engine, wrong):
    """Swapped arguments are found at once."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    with pytest.raises(InvalidSettings, match="second argument"):
        invocation(engine, wrong)


@given(st.lists(st.sampled_from(["enter", "leave first", "leave last"]), max_size=12))
def test_the_number_of_an_invocation_ends_with_the_last_that_shares_it(steps):
    """Overlapping invocations share a number, the next has a higher one, outside it is 0."""
    invocations, running, last = ActiveInvocations(), [], 0
    for step in steps:
        if step == "enter":
            running.append(RunningInvocation())
            invocations.enter(running[-1])
        elif running:
            number = invocations.number
            ended = invocations.leave(running.pop(0 if step == "leave first" else -1))
            assert ended == (None if running else number)
            last = number if ended else last
        assert bool(invocations.number) is invocations.active is bool(running)
        assert not running or invocations.number > last


def test_a_foreign_engine_is_refused_while_the_module_loads():
    """An engine of SQLAlchemy's own has no policy to apply."""
    with pytest.raises(InvalidSettings, match=r"lambdadb\.create_engine"):
        handler(sqlalchemy.create_engine(URL))


def test_the_decorator_without_an_engine_says_how_it_is_written():
    """`@handler` alone, and `@handler()`."""
    with pytest.raises(InvalidSettings, match=r"@handler\(engine\)"):
        handler(lambda event, context: None)
    with pytest.raises(InvalidSettings, match=r"@handler\(engine\)"):
        handler()


def test_an_unknown_answer_is_refused(engine):
    """`on_resuming` is "raise" or "503"."""
    with pytest.raises(InvalidSettings, match="504"):
        handler(engine, on_resuming="504")


def test_sync_and_async_cannot_be_mixed_up():
    """An asynchronous engine needs `async with` and a coroutine function, and says so."""
    engine = create_async_engine(URL)
    with pytest.raises(InvalidSettings, match="async with"), invocation(engine):
        pass
    with pytest.raises(InvalidSettings, match="async def"):
        handler(engine)(lambda event, context: None)


HTTP_EVENTS = {
    "rest": {
        "httpMethod": "GET",
        "headers": {},
        "multiValueHeaders": {},
        "requestContext": {"httpMethod": "GET"},
    },
    "http": {"version": "2.0", "headers": {}, "requestContext": {"http": {"method": "GET"}}},
    "url": {"version": "2.0", "headers": {}, "requestContext": {"http": {"method": "GET"}}},
    "alb": {"httpMethod": "GET", "headers": {}, "requestContext": {"elb": {"targetGroupArn": "arn"}}},
}


@pytest.mark.parametrize("kind", HTTP_EVENTS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_http_clients_are_told_when_to_come_back(kind, asynchronous, engine):
    """Over HTTP a database that is waking up is 503 with Retry-After, for every kind of gateway."""

    async def coroutine(event, context):
        resuming()

    function = coroutine if asynchronous else resuming
    answer = handler(engine, on_resuming="503")(function)(HTTP_EVENTS[kind], LambdaContext())
    assert answer["statusCode"] == 503
    assert answer["statusDescription"] == "503 Service Unavailable"
    assert answer["headers"]["Retry-After"] == "14"
    assert json.loads(answer["body"])["retryAfter"] == 14


def test_a_load_balancer_with_multi_value_headers_is_answered_in_kind(engine):
    """Such a load balancer ignores single-value headers in the answer."""
    event = {"httpMethod": "GET", "multiValueHeaders": {}, "requestContext": {"elb": {}}}
    answer = handler(engine, on_resuming="503")(resuming)(event, LambdaContext())
    assert answer["multiValueHeaders"]["Retry-After"] == ["14"]
    assert "headers" not in answer


@pytest.mark.parametrize(
    "event", [{"Records": []}, {}, None, [], {"requestContext": {"routeKey": "$connect"}}]
)
def test_other_events_reach_lambdas_own_retries(event, engine):
    """A queue, a schedule or a socket has no use for a 503: the error is raised."""
    with pytest.raises(DatabaseResuming):
        handler(engine, on_resuming="503")(resuming)(event, LambdaContext())


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("retry_after", [None, 7])
def test_every_failed_connect_that_another_try_may_mend_is_answered(fault, retry_after, engine):
    """A full server too: the answer says what is the matter, and never more than that."""

    def fail(event, context):
        raise ConnectFailed(
            "text of the error",
            fault=fault,
            waited=1.0,
            attempts=2,
            orig=psycopg.OperationalError("text of the driver"),
            retry_after=retry_after,
        )

    decorated = handler(engine, on_resuming="503")(fail)
    if retry_after is None:
        with pytest.raises(ConnectFailed):
            decorated(HTTP_EVENTS["http"], LambdaContext())
        return
    answer = decorated(HTTP_EVENTS["http"], LambdaContext())
    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "7")
    assert "text of" not in json.dumps(answer)
    assert ("waking up" in answer["body"]) is (fault is Fault.RESUMING)


def test_raising_is_the_default(engine):
    """Nobody gets a 503 without asking for it."""
    with pytest.raises(DatabaseResuming):
        handler(engine)(resuming)(HTTP_EVENTS["http"], LambdaContext())


def test_a_coroutine_function_runs_on_one_loop_for_the_environment(engine):
    """Lambda can call it, and connections bound to its loop survive to the next invocation."""

    @handler(engine)
    async def lambda_handler(event, context):
        return asyncio.get_running_loop()

    assert lambda_handler({}, LambdaContext()) is lambda_handler({}, LambdaContext())


def test_a_coroutine_function_can_still_be_awaited(engine):
    """In a test that has its own loop, the decorated function is awaited there."""

    @handler(engine)
    async def lambda_handler(event, context):
        return event

    async def main():
        return await lambda_handler({"a": 1}, LambdaContext())

    assert asyncio.run(main()) == {"a": 1}


def test_the_function_keeps_its_name(engine):
    """The decorated function still tells its name and documentation."""

    @handler(engine)
    def lambda_handler(event, context):
        """Take an order."""

    assert (lambda_handler.__name__, lambda_handler.__doc__) == ("lambda_handler", "Take an order.")
