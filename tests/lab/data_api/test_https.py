"""The HTTP client over TLS, against the emulated API with a certificate of its own authority."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import trustme
from sqlalchemy import text

import lambdadb
import lambdadb.aio
from lambdadb.deadline import Clock
from lambdadb.drivers.data_api import http
from lambdadb.drivers.data_api.http import HttpConnection, NoAnswer, NotSent
from lambdadb.lab.data_api import DataApi, Fault

from .conftest import SECRET_KEY

ONE = text("SELECT 1")


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority whose root the system's OpenSSL trusts, for this test."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    trust(monkeypatch, tmp_path / "root.pem")
    yield authority
    http._tls_context.cache_clear()


def trust(monkeypatch, file):
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    http._tls_context.cache_clear()


def make_context(authority, name="127.0.0.1"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def api(server, authority, monkeypatch):
    with DataApi(server, secret_key=SECRET_KEY, tls=make_context(authority)) as api:
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        yield api


def test_statements_are_sent_over_tls(api):
    """One connection serves several calls; after an answer that was lost there is another."""
    engine = lambdadb.create_engine(api.url())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT repeat('x', 60000)")) == "x" * 60_000
        client = connection.connection.driver_connection.api.http
        first = client._socket
        assert first.version() == "TLSv1.3"
        assert connection.scalar(ONE) == 1
        assert client._socket is first
    api.fail(Fault(), after=1)
    with engine.begin() as connection:
        assert connection.scalar(ONE) == 1
    engine.dispose()


def test_asynchronous_code_sends_over_tls(api):
    """The handshake and the answer are waited for on the event loop."""

    async def use():
        engine = lambdadb.aio.create_async_engine(api.url())
        async with engine.begin() as connection:
            assert await connection.scalar(text("SELECT length(repeat('x', 60000))")) == 60_000
        await engine.dispose()

    asyncio.run(use())


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_that_is_not_verified_gets_nothing(server, authority, monkeypatch, tmp_path, wrong):
    """The connect fails at once, and says how to trust another authority."""
    name = "127.0.0.1" if wrong == "authority" else "somebody.example"
    with DataApi(server, secret_key=SECRET_KEY, tls=make_context(authority, name)) as api:
        for variable, value in api.environment().items():
            monkeypatch.setenv(variable, value)
        if wrong == "authority":
            trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
            trust(monkeypatch, tmp_path / "other.pem")
        with pytest.raises(lambdadb.ConnectFailed, match="SSL_CERT_FILE") as raised:
            lambdadb.create_engine(api.url()).connect()
    assert raised.value.fault is lambdadb.Fault.UNTRUSTED
    assert raised.value.attempts == 1
    assert api.calls == []


@contextlib.contextmanager
def serve(answer):
    """A server of one connection, with which a thread calls `answer(socket)`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with listener.accept()[0] as inside, contextlib.suppress(OSError):
                answer(inside)

        thread = threading.Thread(target=accept)
        thread.start()
        yield HttpConnection(("https", "127.0.0.1", listener.getsockname()[1]))
        thread.join()


def post(connection, seconds=30.0):
    clock = Clock()
    try:
        return connection.post("/Execute", {}, b"{}", clock=clock, until=clock.now() + seconds)
    finally:
        connection.close()


def test_a_silent_handshake_ends_in_time(authority):
    """Nothing was sent, so the call has no effect."""
    silent = serve(lambda inside: inside.recv(65536) and inside.recv(1))
    with silent as connection, pytest.raises(NotSent, match="timed out"):
        post(connection, 0.2)


def test_a_close_in_the_handshake_is_a_request_that_was_not_sent(authority):
    """As when a load balancer has no target."""
    with serve(lambda inside: inside.recv(65536)) as connection, pytest.raises(NotSent):
        post(connection)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"], ids=len)
def test_a_close_after_the_request_leaves_it_unanswered(authority, answer):
    """Whether nothing came or a part of an answer."""

    def respond(inside):
        with make_context(authority).wrap_socket(inside, server_side=True) as encrypted:
            assert encrypted.recv(65536).startswith(b"POST /Execute HTTP/1.1\r\n")
            encrypted.send(answer)

    with serve(respond) as connection, pytest.raises(NoAnswer):
        post(connection)


def test_a_connection_that_is_shut_down_sends_nothing_more(api):
    """Also if its thread had not connected yet, and closes what it opens then."""
    connection = HttpConnection(("https", "127.0.0.1", api.port))
    connection.shut_down()
    with pytest.raises(NotSent, match="shut down"):
        post(connection)
    assert connection._socket is None
    assert api.calls == []
