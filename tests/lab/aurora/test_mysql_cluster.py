"""An emulated Aurora MySQL: it pauses, wakes in each shape, and counts sessions and round trips."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pymysql
import pytest
from sqlalchemy import text

import lambdadb
import lambdadb.aio
from lambdadb import ConnectFailed, ResumeRetry
from lambdadb.lab import LabError
from lambdadb.lab.aurora import MYSQL_SHAPES, Cluster, Shape
from lambdadb.lab.clock import LabClock
from lambdadb.lab.mariadb import MariaDB

# So fast that a resume takes half a second, with some attempts in it.
RETRY = ResumeRetry(timeout=30.0, max_backoff=0.1)


@pytest.fixture(scope="module")
def server():
    """A MariaDB for all clusters of this file; skips where it is not installed."""
    server = MariaDB()
    try:
        server.start()
    except LabError as error:
        pytest.skip(str(error))
    with server:
        yield server


def connect(url, **keywords):
    """Open a plain session of PyMySQL."""
    parts = lambdadb.engine.make_url(url)
    return pymysql.connect(
        host=parts.host, port=parts.port, user=parts.username, password=parts.password, **keywords
    )


@pytest.mark.parametrize(
    "asynchronous", [False, pytest.param(True, marks=pytest.mark.sweep)], ids=["sync", "async"]
)
@pytest.mark.parametrize("shape", MYSQL_SHAPES, ids=lambda shape: shape.value)
def test_a_connect_survives_each_shape_of_a_resume(shape, asynchronous, server, monkeypatch):
    """Whatever a resuming cluster answers, one `connect()` waits for it and gets a session."""
    # Elsewhere a refusal on the same machine means that no server runs there.
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")
    monkeypatch.setattr("lambdadb.retry._COUNTED", 0.6)
    with Cluster(server, resume=0.3, shape=shape, paused=True) as cluster:
        if asynchronous:

            async def ask():
                engine = lambdadb.aio.create_async_engine(cluster.url(), retry=RETRY)
                async with engine.connect() as connection:
                    answer = await connection.scalar(text("SELECT 1"))
                await engine.dispose()
                return answer

            assert asyncio.run(ask()) == 1
        else:
            engine = lambdadb.create_engine(cluster.url(), retry=RETRY)
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
            engine.dispose()
        assert [event.kind for event in cluster.events] == ["resuming", "available"]


@pytest.mark.parametrize("number", [1040, 1053, 1203])
def test_numbers_that_count_as_resuming(number, server):
    """Error packets before the greeting that say "not now" are waited for."""
    with Cluster(server, resume=0.3, shape=Shape.ERROR, error_number=number, paused=True) as cluster:
        engine = lambdadb.create_engine(cluster.url(), retry=RETRY)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()


def test_any_number_can_be_made_to_count_as_resuming(server):
    """A number that lambdadb does not know fails at once, and is waited for if the settings name it."""
    with Cluster(server, resume=0.3, shape=Shape.ERROR, error_number=1130, paused=True) as cluster:
        engine = lambdadb.create_engine(cluster.url(), retry=RETRY)
        with pytest.raises(ConnectFailed, match="1130"):
            engine.connect()
    with Cluster(server, resume=0.3, shape=Shape.ERROR, error_number=1130, paused=True) as cluster:
        engine = lambdadb.create_engine(cluster.url(), retry=replace(RETRY, resuming_errors=[1130]))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()


def test_a_port_taken_meanwhile_is_given_up_for_another(server):
    """Also if the other program greets as a server does; the data are the same on the new port."""
    server.stop()
    before = server.port
    with socket.create_server(("127.0.0.1", before)) as other, suppress(OSError):
        greeter = threading.Thread(target=lambda: greet(other))
        greeter.start()
        server.start()
        other.shutdown(socket.SHUT_RDWR)
        greeter.join()
    assert server.port != before
    connect(server.url()).close()


def greet(listener):
    with suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            accepted.sendall(b"hello")
            accepted.close()


def test_it_pauses_without_sessions_and_names_who_blocks(server):
    """An idle session keeps it awake, by its program_name; without one it pauses."""
    clock = LabClock(100.0)
    with Cluster(server, auto_pause=30.0, resume=10.0, clock=clock) as cluster:
        connection = connect(cluster.url(), program_name="shop")
        wait_for(cluster, "blocked")
        assert "1 of shop" in cluster.events[-1].reason
        assert [session.application_name for session in cluster.sessions()] == ["shop"]
        connection.close()
        wait_for(cluster, "paused")
        connect(cluster.url()).close()
        wait_for(cluster, "available")


def test_round_trips_are_counted_as_on_the_wire(server):
    """A login of PyMySQL is three, a statement is one, and the farewell is none."""
    with Cluster(server) as cluster:
        connection = connect(cluster.url())
        assert cluster.round_trips == 3
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
        assert cluster.round_trips == 4


def test_a_shape_of_the_other_database_is_refused(server):
    """A shape that only PostgreSQL has names those that can be chosen."""
    with pytest.raises(LabError, match="login-silent"):
        Cluster(server, shape=Shape.NO_HBA)


def wait_for(cluster, kind):
    end = time.monotonic() + 60
    while kind not in [event.kind for event in cluster.events]:
        assert time.monotonic() < end, cluster.events
        time.sleep(0.01)
