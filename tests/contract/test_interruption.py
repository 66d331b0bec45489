"""An exception from a signal handler may come between any two lines of the pool: no slot is lost."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys

import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import PerEnvironment, PerInvocation
from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault

from .conftest import ScriptedTestbed

ONE = text("SELECT 1")
FILES = (
    "/lambdadb/pool.py",
    "/lambdadb/checkout.py",
    "/lambdadb/deadline.py",
    "/lambdadb/invocation.py",
)


class Interrupted(BaseException):
    """What a signal handler raises."""


@contextlib.contextmanager
def interrupted_at(number):
    """Raise at the `number`-th line that runs in the pool; yields a list that tells whether it did."""
    lines, raised = itertools.count(1), []

    def trace_lines(frame, event, argument):
        if event == "line" and next(lines) == number:
            raised.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            raise Interrupted
        return trace_lines

    def trace(frame, event, argument):
        return trace_lines if frame.f_code.co_filename.endswith(FILES) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield raised
    finally:
        sys.settrace(before)


def use(engine):
    with engine.connect() as connection:
        connection.execute(ONE)


def use_all(engine):
    with lambdadb.invocation(engine):
        for connection in [engine.connect() for _ in range(engine.pool.size())]:
            connection.execute(ONE)
            connection.close()


def use_again(engine, server):
    use(engine)
    use(engine)


def replace_a_dead_session(engine, server):
    use(engine)
    server.sessions.clear()
    use(engine)


def fail_to_connect(engine, server):
    server.failures = [AttemptFailed(Fault.CREDENTIALS, "wrong password")]
    with contextlib.suppress(lambdadb.ConnectFailed):
        use(engine)
    server.failures = []


def end_an_invocation(engine, server):
    for _ in range(2):
        with lambdadb.invocation(engine):
            use(engine)


def end_an_invocation_with_a_session_left_open(engine, server):
    with lambdadb.invocation(engine):
        engine.connect().execute(ONE)


def dispose(engine, server):
    use(engine)
    engine.dispose()
    use(engine)


POLICIES = {
    "environment": PerEnvironment(),
    "invocation": PerInvocation(),
    "ping": PerEnvironment(ping_after=0.0),
    "reset": PerEnvironment(reset="session"),
    "two": PerEnvironment(connections=2),
    "wait": PerEnvironment(checkout_timeout=0.01),
}


TRIALS = [
    *[(use_again, name) for name in ("environment", "invocation", "ping", "two")],
    (replace_a_dead_session, "environment"),
    *[(fail_to_connect, name) for name in ("environment", "wait")],
    *[(end_an_invocation, name) for name in ("environment", "invocation", "reset")],
    *[(end_an_invocation_with_a_session_left_open, name) for name in ("environment", "two")],
    (dispose, "environment"),
]


# Python ignores, with a warning, what is raised in a callback of the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("scenario", "policy"), TRIALS)
def test_an_interruption_at_any_line_loses_no_slot(scenario, policy, step):
    """The next checkout works, the invocation ends, and no session is left. A sample, or every line."""
    server = ScriptedTestbed().server
    for number in itertools.count(1, step):
        engine = lambdadb.create_engine("scripted+memory://app@database/orders", policy=POLICIES[policy])
        try:
            with interrupted_at(number) as where:
                scenario(engine, server)
        except Interrupted:
            server.failures = []
            if "invocation" not in scenario.__name__:
                use_all(engine)
        with lambdadb.invocation(engine):
            pass  # at the latest, the end of the next invocation ends what was left
        use_all(engine)
        assert (engine.pool.checkedout(), engine.pool.invocations.active) == (0, False), where
        engine.dispose()
        if server.sessions:
            gc.collect()
        assert server.sessions == [], where
        if not where:
            break
    assert number > 20
