"""The invocation's time inside statements."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from lambdadb import OutOfTime, PerEnvironment, PerInvocation, ResumeRetry
from lambdadb.lab.context import LambdaContext

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
RETRY = ResumeRetry(reserve=1.0)


@POLICIES
def test_a_statement_ends_in_time_for_the_handler_to_answer(policy, mode, database, sessions):
    """At the invocation's time less the reserve: cancelled, rolled back, `OutOfTime`."""

    def steps():
        engine = mode.create_engine(database, policy=policy, retry=RETRY)
        context = LambdaContext(2.0)

        def work():
            with mode.invocation(engine, context), engine.begin() as connection:
                connection.execute(text("INSERT INTO item (name) VALUES ('undone')"))
                connection.execute(text("SELECT pg_sleep(30)"))

        with pytest.raises(OutOfTime, match="cancelled") as caught:
            work()
        assert 100 < context.get_remaining_time_in_millis() <= 1000, "too late, or before its time"
        assert isinstance(caught.value.__cause__, psycopg.Error)
        assert not caught.value.safe_to_repeat
        sessions.become(0)
        with mode.invocation(engine, LambdaContext(20)), engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        engine.dispose()

    mode.run(steps)


def test_a_server_that_hears_no_cancel_is_left(mode, database, sessions, admin, monkeypatch):
    """Half of the reserve after the cancel the connection is closed: the handler never hangs."""
    # As behind RDS Proxy, which ignores cancel requests.
    monkeypatch.setattr("lambdadb.drivers.psycopg.connection.prepare_cancel", lambda *_: lambda: None)

    def steps():
        engine = mode.create_engine(database, retry=RETRY)
        context = LambdaContext(2.0)

        def work():
            with mode.invocation(engine, context), engine.begin() as connection:
                connection.execute(text("SELECT pg_sleep(30)"))

        with pytest.raises(OutOfTime, match="closed"):
            work()
        assert context.get_remaining_time_in_millis() > 100
        for pid, *_ in sessions():
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        engine.dispose()

    mode.run(steps)


def test_without_a_deadline_statements_take_their_time(mode, database):
    """Outside an invocation nothing is cut short."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.3)"))
        engine.dispose()

    mode.run(steps)


def test_the_servers_own_timeout_stays_the_servers(mode, database):
    """`statement_timeout` raises SQLAlchemy's OperationalError as ever, not `OutOfTime`."""

    def steps():
        engine = mode.create_engine(database, connect_args={"options": "-c statement_timeout=100"})
        with mode.invocation(engine, LambdaContext(20)), engine.connect() as connection:
            with pytest.raises(Exception, match="statement timeout") as caught:
                connection.execute(text("SELECT pg_sleep(5)"))
            assert not isinstance(caught.value, OutOfTime)
        engine.dispose()

    mode.run(steps)
