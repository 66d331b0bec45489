"""Names, hosts, stores and refusals of a real connect."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback

import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import (
    ConnectFailed,
    Fault,
)
from lambdadb.aio import create_async_engine

from .servers import PASSWORD

ONE = text("SELECT 1")


@pytest.fixture
def engine(database):
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


class Delegating:
    """An asynchronous store that passes the question on."""

    def __init__(self, *passwords):
        self.passwords = passwords

    def logins(self, parameters):
        return self._logins()

    async def _logins(self):
        for password in self.passwords:
            await asyncio.sleep(0)
            yield {"password": password}


def test_pg_variables_work_as_with_sqlalchemy(server, database, monkeypatch):
    """An empty URL means libpq's environment variables."""
    for name, value in {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.username,
        "PGPASSWORD": server.password,
        "PGDATABASE": database.database,
    }.items():
        monkeypatch.setenv(name, value)
    engine = lambdadb.create_engine("postgresql+psycopg://")
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1
    engine.dispose()


def test_a_host_name_is_resolved_outside_of_the_loop(mode, database):
    """`localhost` has two addresses: the one that answers is found."""

    def steps():
        engine = mode.create_engine(database.set(host="localhost"))
        with engine.connect() as connection:
            assert connection.scalar(ONE) == 1
        engine.dispose()

    mode.run(steps)


def test_a_name_server_that_does_not_answer_cannot_outlast_the_limit(mode, database, monkeypatch):
    """Resolving is bounded like everything else of a connect, and blocks no event loop."""
    answered = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answered.wait(10) and [])

    def steps():
        engine = mode.create_engine(
            database.set(host="db.example"), retry=lambdadb.ResumeRetry(timeout=0.5, hedge_after=0.2)
        )
        with pytest.raises(lambdadb.ConnectFailed, match="resolving the host name"):
            engine.connect()
        assert not answered.is_set()

    mode.run(steps)
    answered.set()


def test_a_silent_first_host_hides_no_other(mode, database):
    """With several hosts each attempt begins at the next one."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = {
            "host": f"127.0.0.1:{silent.getsockname()[1]}",
            "second": f"{database.host}:{database.port}",
        }
        url = database.set(host=None, port=None, query={"host": tuple(hosts.values())})

        def steps():
            engine = mode.create_engine(url, retry=lambdadb.ResumeRetry(timeout=10))
            with engine.connect() as connection:
                assert connection.scalar(ONE) == 1
            engine.dispose()

        mode.run(steps)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"password": "canary-wrong-2b8e"}, Fault.CREDENTIALS),
        ({"username": "nobody_here"}, Fault.CREDENTIALS),
        ({"database": "not_there"}, Fault.MISCONFIGURED),
        ({"host": "no-such-host.invalid"}, Fault.MISCONFIGURED),
        ({"query": {"options": "-c no_such_setting=1"}}, Fault.MISCONFIGURED),
        ({"query": {"sslmode": "verify-full", "sslrootcert": "/none"}}, Fault.UNTRUSTED),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once_without_secrets(change, fault, mode, database, log):
    """A real server's answer is understood, and no password is in error, traceback, repr or log."""
    url = database.set(**change)
    text_of = {}

    def steps():
        engine = mode.create_engine(url)
        started = time.monotonic()
        with pytest.raises(ConnectFailed) as caught:
            engine.connect()
        assert time.monotonic() - started < 20, "it waited for what cannot pass"
        error = caught.value
        assert error.fault is fault
        assert error.attempts == 1
        chain = [error, error.__cause__, error.__context__, error.orig]
        text_of["all"] = "".join(traceback.format_exception(error)) + repr(chain)
        text_of["all"] += repr([vars(link) for link in chain if link]) + repr(engine) + repr(engine.url)
        text_of["all"] += repr(getattr(error.orig, "pgconn", None))

    mode.run(steps)
    logged = "".join(repr(vars(record)) + record.getMessage() for record in log.records)
    for secret in (PASSWORD, "canary-wrong"):
        assert secret not in text_of["all"]
        assert secret not in logged


def test_an_asynchronous_store_is_asked_on_the_loop(database):
    """Also one whose method only returns the generator; a refused login is followed by the next."""
    store = Delegating("canary-3wrong", database.password)

    async def connect():
        engine = create_async_engine(database._replace(password=None), credentials=store)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        await engine.dispose()

    asyncio.run(connect())


def test_an_asynchronous_store_s_own_timeout_is_told_as_its_own(database):
    """Not as the deadline's, which is far away."""

    class Slow:
        async def logins(self, parameters):
            raise TimeoutError("vault: read timed out after 1 s")
            yield

    async def connect():
        engine = create_async_engine(database._replace(password=None), credentials=Slow())
        with pytest.raises(ConnectFailed, match="read timed out after 1 s"):
            await engine.connect()

    asyncio.run(connect())
