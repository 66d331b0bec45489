"""The state of an idle socket, seen without a round trip; and waits before reads."""

from __future__ import annotations

import socket

import pytest

from lambdadb.drivers.pymysql.stream import Stream

# Error 4031 of MySQL 8.0.24, as its packet is on the wire (Reference Manual, "ERR_Packet").
FAREWELL = b"\x43\x00\x00\x00\xff\xbf\x0f#HY000The client was disconnected by the server"


@pytest.fixture
def pair():
    """A stream, and the server's end."""
    ours, theirs = socket.socketpair()
    with theirs:
        stream = Stream(ours)
        yield stream, theirs
        stream.close()


def test_an_open_connection_has_not_ended(pair):
    """Asked as often as one likes."""
    stream, _ = pair
    assert [stream.has_ended() for _ in range(3)] == [False] * 3


def test_a_farewell_is_an_end(pair):
    """Error 4031 came while the function was frozen: the session is gone, and nobody reads the error."""
    stream, server = pair
    server.send(FAREWELL)
    assert stream.has_ended()


def test_an_end_without_a_farewell_is_an_end(pair):
    """As of MariaDB, and of MySQL before 8.0.24."""
    stream, server = pair
    server.close()
    assert stream.has_ended()


def test_a_connection_closed_here_has_ended(pair):
    """No poll on a closed descriptor."""
    stream, _ = pair
    stream.close()
    assert stream.has_ended()


@pytest.mark.parametrize("shares", [False, True])
def test_an_event_loop_has_a_turn_before_each_read(pair, shares):
    """Also while a long result is here. Otherwise a wait is made for the beginning of an answer only."""
    stream, server = pair
    stream.shares = shares
    waits = []
    stream.wait = lambda descriptor, event: waits.append(descriptor)
    stream.sendall(b"?")
    server.send(b"x" * 400)
    for _ in range(4):
        assert stream.recv_into(bytearray(100)) == 100
    assert len(waits) == (4 if shares else 1)
