"""A network that has fallen silent: every wait of the connection layer has an end of its own."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import PerEnvironment, ResumeRetry
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.faultproxy.fault_point import Action, Direction, FaultPoint
from lambdadb.lab.faultproxy.fault_sweep import open_testbed

FROM_SERVER = Direction.SERVER_TO_CLIENT


@pytest.fixture(scope="module")
def ground():
    with open_testbed() as ground:
        yield ground


def test_a_ping_into_silence_is_given_up_and_replaced(ground):
    """A flow dropped without a word costs 2 s, also outside of an invocation; then a connect."""
    engine = lambdadb.create_engine(ground.url, policy=PerEnvironment(ping_after=0.0))
    with engine.connect() as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    ground.proxy.arm(FaultPoint(FROM_SERVER, Action.STALL, message=0))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before
    assert ground.proxy.fault_done
    engine.dispose()


def test_the_first_questions_end_with_the_connect(ground):
    """A server that logs in and then falls silent is an error within the connect's limit."""
    engine = lambdadb.create_engine(ground.url, retry=ResumeRetry(timeout=1.5))
    ground.proxy.arm(None)
    with engine.connect():
        pass
    login = [
        message.kind for message in ground.proxy.messages if message.direction is FROM_SERVER
    ].index("Z")
    engine.dispose()
    engine = lambdadb.create_engine(ground.url, retry=ResumeRetry(timeout=1.5))
    ground.proxy.arm(FaultPoint(FROM_SERVER, Action.STALL, message=login + 1))
    with pytest.raises(lambdadb.OutOfTime):
        engine.connect()
    ground.proxy.arm(None)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("how", ["SQLAlchemy", "driver"])
@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("COMMIT", lambdadb.CommitInDoubt),
        ("INSERT INTO unit (name) VALUES ('b'); COMMIT", lambdadb.CommitInDoubt),
        ("INSERT INTO unit (name) VALUES ('b')", lambdadb.OutOfTime),
    ],
)
def test_a_unit_whose_own_commit_gets_no_answer_is_in_doubt(ground, statement, error, how):
    """Time ends before the answer to its COMMIT: whether it is committed cannot be known."""
    engine = lambdadb.create_engine(ground.url, retry=ResumeRetry(reserve=0.5))

    def unit(connection):
        connection.execute(text("INSERT INTO unit (name) VALUES ('a')"))
        ground.proxy.arm(FaultPoint(FROM_SERVER, Action.STALL, message=0))
        if how == "driver":
            connection.connection.driver_connection.execute(statement)
        else:
            connection.exec_driver_sql(statement)

    with engine.connect():
        pass
    with pytest.raises(error), lambdadb.invocation(engine, LambdaContext(2.0)):
        lambdadb.run_transaction(engine, unit)
    ground.proxy.arm(None)
    engine.dispose()


@pytest.mark.parametrize("first", [True, False], ids=["first statement", "second statement"])
def test_a_server_that_no_longer_reads_ends_a_statement_that_is_being_sent(ground, first):
    """Time is over while the statement is still on its way: said so, and the connection is closed."""
    engine = lambdadb.create_engine(ground.url, retry=ResumeRetry(reserve=0.5))
    ground.proxy.arm(None)
    long = {"long": "x" * 60_000_000}
    with lambdadb.invocation(engine, LambdaContext(60.0)), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with lambdadb.invocation(engine, LambdaContext(1.5)), engine.connect() as connection:
        if not first:
            connection.execute(text("SELECT 1"))
        ground.proxy.arm(FaultPoint(Direction.CLIENT_TO_SERVER, Action.STALL, message=0))
        with pytest.raises(lambdadb.OutOfTime) as raised:
            connection.execute(text("SELECT length(:long)"), long)
        assert raised.value.sent
    ground.proxy.arm(None)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_a_silent_first_address_of_a_name_hides_no_other(ground, monkeypatch):
    """A name with several addresses: each attempt begins at the next one."""
    with socket.create_server(("127.0.0.2", ground.proxy.port)):
        found = [(socket.AF_INET, 1, 6, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        ground.proxy.arm(None)
        url = ground.url.replace("127.0.0.1", "db.example")
        engine = lambdadb.create_engine(url, retry=ResumeRetry(timeout=10))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()
