"""The invocation's time inside statements on MariaDB."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pymysql
import pytest
from sqlalchemy import make_url, text

import lambdadb
from lambdadb import OutOfTime, PerEnvironment, PerInvocation, ResumeRetry
from lambdadb.drivers.pymysql.driver import PyMySQLDriver
from lambdadb.lab.context import LambdaContext

from ..waiting import wait_until

RETRY = ResumeRetry(reserve=0.5)
SLEEP = text("SELECT SLEEP(60)")


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_a_statement_ends_in_time_for_the_handler_to_answer(policy, mode, server):
    """KILL QUERY at the time less the reserve: rolled back, `OutOfTime`, and another session next."""

    def steps():
        engine = mode.create_engine(server.url, policy=policy, retry=RETRY)
        context = LambdaContext(1.0)
        used = []

        def work():
            with lambdadb.invocation(engine, context), engine.begin() as connection:
                used.append(connection.scalar(text("SELECT CONNECTION_ID()")))
                connection.execute(text("INSERT INTO unit VALUES ('undone')"))
                connection.execute(SLEEP)

        with pytest.raises(OutOfTime, match="cancelled") as caught:
            work()
        assert 0 < context.get_remaining_time_in_millis() <= 500, "too late, or before its time"
        assert isinstance(caught.value.__cause__, pymysql.Error)
        assert not caught.value.safe_to_repeat
        with lambdadb.invocation(engine, LambdaContext(60)), engine.connect() as connection:
            assert connection.scalar(text("SELECT COUNT(*) FROM unit")) == 0
            assert connection.scalar(text("SELECT CONNECTION_ID()")) not in used
        engine.dispose()

    mode.run(steps)
    wait_until(lambda: server.sessions() == [])


def test_a_server_that_hears_no_kill_is_left(mode, server, monkeypatch):
    """Half of the reserve after it the connection is closed: the handler never hangs."""
    monkeypatch.setattr("lambdadb.drivers.pymysql.connection.DeadlineConnection._cancel", lambda _: None)

    def steps():
        engine = mode.create_engine(server.url, retry=RETRY)
        context = LambdaContext(1.0)

        def work():
            with lambdadb.invocation(engine, context), engine.begin() as connection:
                connection.execute(SLEEP)

        with pytest.raises(OutOfTime, match="closed"):
            work()
        assert context.get_remaining_time_in_millis() > 0
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("proxy", [True, False])
def test_through_a_proxy_nobody_is_killed(proxy):
    """The ids of its sessions are not the server's. The connection is closed instead."""
    host = f"orders.{'proxy' if proxy else 'cluster'}-abc.eu-west-1.rds.amazonaws.com"
    connection = SimpleNamespace(dial=None, watch=lambda *_: None)
    target = PyMySQLDriver().make_target([], {"host": host})
    target.to_dbapi_connection(SimpleNamespace(connection=connection), None, 0.0)
    assert (connection.dial is None) == proxy


def test_a_kill_goes_to_the_same_server(server, mode, monkeypatch):
    """Also where the host's name means another one by now, as that of a reader endpoint does."""
    resolve = socket.getaddrinfo
    moved = []

    def answer(host, *arguments, **keywords):
        name = host.decode() if isinstance(host, bytes) else host
        if name != "db.example":
            return resolve(host, *arguments, **keywords)
        return resolve("127.0.0.2" if moved else "127.0.0.1", *arguments, **keywords)

    monkeypatch.setattr("socket.getaddrinfo", answer)
    url = make_url(server.url).set(host="db.example").update_query_dict({"ssl_disabled": "true"})

    def steps():
        engine = mode.create_engine(url, retry=RETRY)

        def work():
            with lambdadb.invocation(engine, LambdaContext(1.0)), engine.connect() as connection:
                moved.append(1)
                connection.execute(SLEEP)

        with pytest.raises(OutOfTime, match="cancelled"):
            work()
        engine.dispose()

    mode.run(steps)


def test_the_servers_own_timeout_stays_the_servers(mode, server):
    """`max_statement_time` raises SQLAlchemy's OperationalError as ever, not `OutOfTime`."""
    keywords = {"connect_args": {"init_command": "SET max_statement_time = 0.1"}}

    def steps():
        engine = mode.create_engine(server.url, **keywords)
        with lambdadb.invocation(engine, LambdaContext(60)), engine.connect() as connection:
            with pytest.raises(Exception, match="max_statement_time") as caught:
                connection.execute(SLEEP)
            assert not isinstance(caught.value, OutOfTime)
        engine.dispose()

    mode.run(steps)
