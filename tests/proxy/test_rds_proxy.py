"""The lab's RDS Proxy refuses, pins and times out as AWS documents, and engines of ours live with it."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text

import lambdadb
from lambdadb import ConnectFailed, Fault, OutOfTime, ResumeRetry
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.rds_proxy import RdsProxy
from lambdadb.lab.rds_proxy.client import NAMED_STATEMENT


@pytest.fixture
def rds_proxy(server):
    """Starts one with the settings that a test needs."""
    with ExitStack() as stack:
        yield lambda **keywords: stack.enter_context(RdsProxy(server, **keywords))


def libpq(proxy):
    return proxy.url().replace("+psycopg", "")


def test_undocumented_startup_parameters_are_refused_in_its_words(rds_proxy):
    """`options` and all others; the documented ones pass."""
    proxy = rds_proxy()
    with pytest.raises(psycopg.OperationalError, match="support command-line options"):
        psycopg.connect(libpq(proxy), options="-c jit=off")
    with psycopg.connect(libpq(proxy), application_name="orders", client_encoding="UTF8") as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [("postgres", "canary-wrong", "password authentication failed"), ("app", "x", "no credentials for")],
)
def test_logins_are_checked(user, password, said, rds_proxy):
    """By the proxy itself, which needs a secret of the user."""
    proxy = rds_proxy()
    with pytest.raises(psycopg.OperationalError, match=said):
        psycopg.connect(libpq(proxy), user=user, password=password)


def test_clients_share_sessions_and_pins_keep_them(rds_proxy):
    """Each transaction gets a session. A pinned client keeps its own, and another one waits in vain."""
    proxy = rds_proxy(sessions=1, borrow_timeout=0.3)
    with psycopg.connect(libpq(proxy)) as one, psycopg.connect(libpq(proxy)) as two:
        for client in (one, two, one):
            client.execute("SELECT 1")
            client.commit()
        assert proxy.pins == []
        one.execute("SET statement_timeout = 1000")
        one.commit()
        assert proxy.pins == ["SET"]
        with pytest.raises(psycopg.OperationalError, match="Timed-out waiting to acquire") as caught:
            two.execute("SELECT 1")
        assert caught.value.sqlstate == "08000"
        one.close()
    with psycopg.connect(libpq(proxy)) as three:  # the pinned session was ended with its client
        assert three.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_prepared_statement_pins_unless_it_is_told_otherwise(rds_proxy):
    """psycopg prepares the sixth time. AWS's sources disagree on what follows."""
    for pins in (True, False):
        proxy = rds_proxy(pins_named_statements=pins)
        with psycopg.connect(libpq(proxy)) as client:
            for _ in range(7):
                client.execute("SELECT 1")
        assert proxy.pins == ([NAMED_STATEMENT] if pins else [])


def test_an_idle_client_is_ended(rds_proxy):
    """After IdleClientTimeout its connection is closed."""
    proxy = rds_proxy(idle_client_timeout=0.1)
    for used in (False, True):
        client = psycopg.connect(libpq(proxy), autocommit=True)
        if used:
            client.execute("SELECT 1")
        assert select.select([client.fileno()], [], [], 30.0)[0], "it is still open"
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        client.close()


def test_a_client_too_many_is_refused(rds_proxy):
    """In its words, with 53300."""
    proxy = rds_proxy(max_clients=1)
    with psycopg.connect(libpq(proxy)), pytest.raises(psycopg.OperationalError, match="exceeded"):
        psycopg.connect(libpq(proxy))


def test_an_engine_of_ours_finds_it_and_never_pins(rds_proxy):
    """Behind a name of one's own it is known by its refusal. Nothing of ours pins."""
    proxy = rds_proxy(sessions=1)
    engine = lambdadb.create_engine(proxy.url())
    for _ in range(7):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": "x"})
    lambdadb.run_transaction(engine, lambda c: c.execute(text("SELECT 1")))
    with engine.connect() as connection:
        assert connection.connection.driver_connection.proxy == "rds-proxy"
    engine.dispose()
    assert proxy.pins == []


def test_sqlalchemy_as_people_set_it_up_pins(rds_proxy):
    """Its prepared statements do. So the counter counts."""
    proxy = rds_proxy()
    engine = sqlalchemy.create_engine(proxy.url())
    with engine.connect() as connection:
        for _ in range(7):
            connection.execute(text("SELECT 1"))
    engine.dispose()
    assert proxy.pins == [NAMED_STATEMENT]


def test_a_deadline_closes_where_nothing_can_be_cancelled(rds_proxy):
    """At the deadline itself, not half a reserve later, because no answer to a cancel can come."""
    proxy = rds_proxy()
    engine = lambdadb.create_engine(proxy.url(), proxy="rds-proxy", retry=ResumeRetry(reserve=20.0))
    with engine.connect():
        pass
    began = time.monotonic()
    with lambdadb.invocation(engine, LambdaContext(20.5)), engine.connect() as connection:  # noqa: SIM117
        with pytest.raises(OutOfTime) as caught:
            connection.execute(text("SELECT pg_sleep(30)"))
    assert caught.value.sent
    assert time.monotonic() - began < 10.0
    engine.dispose()


def test_a_borrow_timeout_is_a_connect_that_failed(rds_proxy):
    """EXHAUSTED, safe to repeat, with the setting of the proxy as its remedy."""
    proxy = rds_proxy(sessions=1, borrow_timeout=0.3)
    one, two = (lambdadb.create_engine(proxy.url(), proxy="rds-proxy") for _ in range(2))
    with two.connect():
        pass
    with one.connect() as connection:
        connection.execute(text("SELECT 1"))
        with (
            pytest.raises(ConnectFailed, match="ConnectionBorrowTimeout") as caught,
            two.begin() as other,
        ):
            other.execute(text("SELECT 1"))
    assert (caught.value.fault, caught.value.safe_to_repeat) == (Fault.EXHAUSTED, True)
    one.dispose()
    two.dispose()
