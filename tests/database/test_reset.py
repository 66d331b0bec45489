"""What one invocation leaves in a session for the next, and `PerEnvironment(reset="session")`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from lambdadb import PerEnvironment

PID = text("SELECT pg_backend_pid()")

# What a handler may leave behind, and how the next one would see it.
STATES = {
    "setting": ("SET search_path = pg_catalog", "SHOW search_path"),
    "time zone": ("SET TIME ZONE 'Europe/Berlin'", "SHOW timezone"),
    # A setting that was made up is empty after a reset, where it was unknown at first.
    "tenant": ("SET app.tenant = 'a'", "SELECT nullif(current_setting('app.tenant', true), '')"),
    "role": ("SET ROLE pg_monitor", "SELECT current_user"),
    "authorization": ("SET SESSION AUTHORIZATION pg_monitor", "SELECT session_user"),
    "read only": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SHOW default_transaction_read_only",
    ),
    "temporary table": (
        "CREATE TEMPORARY TABLE left_behind (a int)",
        "SELECT to_regclass('left_behind')",
    ),
    "advisory lock": (
        "SELECT pg_advisory_lock(7)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "listen": ("LISTEN channel", "SELECT count(*) FROM pg_listening_channels()"),
    "prepared": ("PREPARE left_behind AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements"),
    "sequence": ("SELECT setval('item_id_seq', 5)", "SELECT 1"),
    "idle timeout": ("SET idle_session_timeout = 5000", "SHOW idle_session_timeout"),
    "transaction timeout": (
        "SET idle_in_transaction_session_timeout = 5000",
        "SHOW idle_in_transaction_session_timeout",
    ),
}


def look(connection, names):
    seen = {name: str(connection.scalar(text(STATES[name][1]))) for name in names}
    connection.rollback()
    return seen


@pytest.mark.parametrize("reset", ["none", "session"])
def test_a_reset_session_begins_as_at_its_start(reset, mode, database):
    """With "session" nothing goes from one invocation to the next; by default everything does."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(reset=reset))
        with mode.invocation(engine), engine.connect() as connection:
            pid, fresh = connection.scalar(PID), look(connection, STATES)
        for name, (statement, _) in STATES.items():
            with mode.invocation(engine), engine.connect() as connection:
                connection.execute(text(statement))
                connection.commit()
            with mode.invocation(engine), engine.connect() as connection:
                seen = look(connection, [name])
                assert connection.scalar(PID) == pid or name == "authorization"
            if reset == "session":
                assert seen == {name: fresh[name]}, name
            elif name not in ("sequence",):
                assert seen != {name: fresh[name]}, name
                engine.dispose()
                with engine.connect() as connection:
                    pid = connection.scalar(PID)
        engine.dispose()

    mode.run(steps)


def test_inside_one_invocation_a_session_keeps_its_state(mode, database):
    """The reset comes between invocations, not between checkouts."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(reset="session"))
        for _ in range(2):
            with mode.invocation(engine):
                with engine.begin() as connection:
                    assert connection.scalar(text("SHOW timezone")) != "Europe/Berlin"
                    connection.execute(text("SET TIME ZONE 'Europe/Berlin'"))
                with engine.connect() as connection:
                    assert connection.scalar(text("SHOW timezone")) == "Europe/Berlin"
        engine.dispose()

    mode.run(steps)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(0, 2))
def test_statements_that_psycopg_prepared_are_prepared_again(mode, database, counts, threshold):
    """Whatever was prepared before the reset: no statement fails, or meets another one's plan."""

    def steps():
        engine = mode.create_engine(
            database,
            policy=PerEnvironment(reset="session"),
            connect_args={"prepare_threshold": threshold},
        )
        for count in counts:
            with mode.invocation(engine), engine.connect() as connection:
                for number in range(count):
                    for query in ("SELECT :n + 1", "SELECT :n + 2"):
                        value = connection.scalar(text(query), {"n": number})
                        assert value == number + int(query[-1])
                    connection.commit()
        engine.dispose()

    mode.run(steps)


def test_a_session_that_was_killed_is_replaced_by_the_reset(mode, database, sessions):
    """The reset finds out what a ping would: no handler sees the loss."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(reset="session"))
        with mode.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        sessions.terminate()
        with mode.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        engine.dispose()

    mode.run(steps)
