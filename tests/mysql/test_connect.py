"""Connects to MariaDB: what is waited for, what is not, and that every attempt has an end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback

import pytest
from sqlalchemy import make_url, text

import lambdadb
from lambdadb import ConnectFailed, DatabaseResuming, Fault, PerInvocation, ResumeRetry
from lambdadb.aio import create_async_engine
from lambdadb.lab.faultproxy.proxy import Action, Direction, FaultPoint, Proxy

from ..waiting import wait_until
from .conftest import PASSWORD, Server, start

LONG = 60.0
ONE = text("SELECT 1")


@pytest.fixture
def silent():
    """A port that accepts connections and says nothing. PyMySQL's connect_timeout does not end there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_silent_server_cannot_outlast_the_limit(mode, server, silent, monkeypatch):
    """The login is bounded as well as TCP, and a server that accepts may be waking up."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")

    def steps():
        url = make_url(server.url).set(port=silent)
        monkeypatch.setattr("lambdadb.retry._COUNTED", 0.1)
        engine = mode.create_engine(url, retry=ResumeRetry(timeout=0.5, hedge_after=0.1))
        began = time.monotonic()
        with pytest.raises(DatabaseResuming, match="login was not answered") as raised:
            engine.connect()
        assert time.monotonic() - began < LONG / 2
        assert raised.value.attempts > 1

    mode.run(steps)


@pytest.mark.parametrize("action", [Action.STALL, Action.CLOSE, Action.RESET])
@pytest.mark.parametrize("message", [0, 1, 2])
def test_a_login_that_breaks_is_begun_again(mode, server, action, message, monkeypatch):
    """Before the greeting, after the password, and while the session is set up."""
    monkeypatch.setattr("lambdadb.retry._COUNTED", 0.1)

    def steps():
        engine = mode.create_engine(server.url, retry=ResumeRetry(timeout=LONG, hedge_after=0.1))
        server.proxy.arm(FaultPoint(Direction.SERVER_TO_CLIENT, action, message=message))
        with engine.connect() as connection:
            assert connection.scalar(ONE) == 1
        assert server.proxy.fault_done
        engine.dispose()

    mode.run(steps)


@pytest.mark.sweep
def test_a_server_that_hangs_counts_few_errors_of_this_host():
    """It blocks a host after `max_connect_errors`. Each attempt that is given up is one of them."""
    counted = "SELECT COUNT_HANDSHAKE_ERRORS FROM performance_schema.host_cache"
    with start({"skip-name-resolve": "0"}) as mariadb, Proxy(mariadb.port) as proxy:
        admin = Server(mariadb, proxy)
        # 127.0.0.1 has no entry in the cache of hosts.
        engine = lambdadb.create_engine(
            mariadb.url(),
            connect_args={"bind_address": "127.0.0.2"},
            policy=PerInvocation(),
            retry=ResumeRetry(timeout=LONG, hedge_after=0.1),
        )
        with engine.connect():
            pass
        mariadb.freeze()
        thawing = threading.Timer(3.0, mariadb.thaw)
        thawing.start()
        with engine.connect() as connection:
            assert connection.scalar(ONE) == 1
        thawing.join()
        engine.dispose()
        wait_until(lambda: admin.count() == 0)
        assert admin.ask(counted) == [(0,)]
        admin.close()


def test_a_wait_for_a_server_that_never_answers_can_be_cancelled(server, silent):
    """`asyncio.wait_for` around a connect that would wait for a minute."""

    async def main():
        url = make_url(server.url).set(port=silent)
        engine = create_async_engine(url, retry=ResumeRetry(timeout=LONG))
        began = time.monotonic()
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(engine.connect(), 0.2)
        assert time.monotonic() - began < LONG / 2
        assert engine.pool.checkedout() == 0

    asyncio.run(main())


def test_a_connect_cancelled_at_any_turn_of_the_loop_ends(server):
    """The next connect works, and no session is left."""

    async def connect(engine):
        async with engine.connect() as connection:
            await connection.execute(ONE)

    async def cancel_at(turn):
        engine = create_async_engine(server.url)
        task = asyncio.ensure_future(connect(engine))
        for _ in range(turn):
            await asyncio.sleep(0)
        cancelled = task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError) is cancelled, turn
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        assert engine.pool.checkedout() == 0
        await connect(engine)
        await engine.dispose()
        return cancelled

    async def main():
        turn = 0
        while await cancel_at(turn):
            turn += 1
        return turn

    assert asyncio.run(main()) > 5
    wait_until(lambda: server.sessions() == [])


@pytest.mark.parametrize(
    ("change", "fault", "said"),
    [
        ({"password": "canary-wrong-2b8e"}, Fault.CREDENTIALS, "1045"),
        ({"username": "nobody_here"}, Fault.CREDENTIALS, "1045"),
        ({"database": "not_there"}, Fault.MISCONFIGURED, "1049"),
        ({"host": "no-such-host.invalid"}, Fault.MISCONFIGURED, "no-such-host"),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once_without_secrets(change, fault, said, mode, server, log):
    """A real server's answer is understood, and no password is in error, traceback, repr or log."""
    shown = {}

    def steps():
        engine = mode.create_engine(make_url(server.url).set(**change))
        with pytest.raises(ConnectFailed, match=said) as caught:
            engine.connect()
        assert (caught.value.fault, caught.value.attempts) == (fault, 1)
        shown["all"] = "".join(traceback.format_exception(caught.value)) + repr(engine)

    mode.run(steps)
    logged = "".join(repr(vars(record)) + record.getMessage() for record in log.records)
    for secret in (PASSWORD, "canary-wrong"):
        assert secret not in shown["all"] + logged


def test_a_users_own_limit_of_connections_is_waited_for(server):
    """Another function may free one: 1226 and 1203 mean exhausted, not refused."""
    server.ask("CREATE OR REPLACE USER one IDENTIFIED BY 'canary-one' WITH MAX_USER_CONNECTIONS 1")
    server.ask("GRANT ALL ON orders.* TO one")
    url = make_url(server.url).set(username="one", password="canary-one")
    retry = ResumeRetry(exhausted_timeout=0.5)
    first, second = (lambdadb.create_engine(url, retry=retry) for _ in range(2))
    with first.connect():
        with pytest.raises(ConnectFailed) as raised:
            second.connect()
        assert raised.value.fault is Fault.EXHAUSTED
        assert raised.value.retry_after
    first.dispose()
    with second.connect() as connection:
        assert connection.scalar(ONE) == 1
    second.dispose()


def test_an_error_that_the_settings_name_is_waited_for(mode, server, log):
    """Here 1049, of a database that is created while the connect waits for it."""

    def create():
        wait_until(lambda: "is not ready" in log.text)
        server.ask("CREATE DATABASE late")

    def steps():
        retry = ResumeRetry(resuming_errors=[1049], timeout=LONG)
        engine = mode.create_engine(make_url(server.url).set(database="late"), retry=retry)
        with engine.connect() as connection:
            assert connection.scalar(ONE) == 1
        engine.dispose()

    thread = threading.Thread(target=create)
    thread.start()
    mode.run(steps)
    thread.join()
    server.ask("DROP DATABASE late")


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout", "compress", "read_default_file"])
def test_a_parameter_that_lambdadb_decides_is_refused(name, server):
    """While the engine is made, with what to use instead."""
    with pytest.raises(lambdadb.InvalidSettings, match=name):
        lambdadb.create_engine(server.url, connect_args={name: "1"})
