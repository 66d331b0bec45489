from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.proxy import (
    Action,
    Direction,
    FaultPoint,
    Message,
    Proxy,
    points_at_boundaries,
    points_in_bytes,
)
from lambdadb.lab.postgres import Postgres

from ...waiting import wait_until

UP, DOWN = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT
STARTUP = b"\x00\x00\x00\x0e\x00\x03\x00\x00user\x00\x00"
HELLO = b"Q\x00\x00\x00\x0aHELLO\x00"  # 11 bytes
WORLD = b"C\x00\x00\x00\x0aWORLD\x00"
SHORT = 0.1  # seconds in which nothing must come
LONG = 10.0  # seconds in which something must come
PASSWORD = "known-here"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres(password=PASSWORD) as server:
        yield server


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def direct(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection past the proxy, with an empty table t."""
    with psycopg.connect(dsn(postgres.port), autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute("CREATE TABLE t (id integer)")
        yield connection


def dsn(port: int) -> str:
    return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"


def connect(proxy: Proxy, **options: object) -> psycopg.Connection:
    return psycopg.connect(dsn(proxy.port), **{"sslmode": "disable", "autocommit": True, **options})


def rows(direct: psycopg.Connection) -> int:
    return direct.execute("SELECT count(*) FROM t").fetchone()[0]


def hears_nothing(end: socket.socket | psycopg.Connection) -> bool:
    return not select.select([end], [], [], SHORT)[0]


def state(direct: psycopg.Connection, pid: int) -> str | None:
    """What this session is doing; `None` when it has ended."""
    row = direct.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    return row and row[0]


def transfer(proxy: Proxy, number: int = 1) -> None:
    """A connect, a transaction with one row, and the connection's end."""
    connection = connect(proxy, autocommit=False)
    with closing(connection):
        connection.execute(f"INSERT INTO t VALUES ({number})")
        connection.commit()


def record(proxy: Proxy) -> list[Message]:
    proxy.arm(None)
    transfer(proxy)
    return proxy.messages


# Faithful


def test_a_conversation_passes_unchanged(proxy: Proxy) -> None:
    """Values larger than any buffer, errors, COPY, notices and pipelines are the server's own."""
    text = "snowman ☃ " * 300_000
    with connect(proxy) as connection:
        assert connection.execute("SELECT %s::text", [text]).fetchone() == (text,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT 7) TO STDOUT") as copy:
            assert list(copy.rows()) == [("7",)]
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::text", [text[:n]]) for n in range(500)]
        assert [len(cursor.fetchone()[0]) for cursor in cursors] == list(range(500))


def test_both_sides_may_speak_at_once(proxy: Proxy, direct: psycopg.Connection) -> None:
    """A pipeline whose answers pile up while the client still sends does not jam."""
    with connect(proxy) as connection, connection.pipeline():
        cursors = [
            connection.execute("SELECT repeat('x', 100000), %s", ["y" * 100_000]) for _ in range(100)
        ]
    assert sum(len(cursor.fetchone()[0]) for cursor in cursors) == 10_000_000


def test_a_statement_is_cancelled_through_the_proxy(proxy: Proxy) -> None:
    """A request to cancel comes on a connection of its own, and ends without an answer."""
    with connect(proxy) as connection:
        timer = threading.Timer(SHORT, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        timer.join()


def test_declined_encryption_passes(proxy: Proxy) -> None:
    """A request for TLS is recorded with its one-byte answer, and the connection goes on."""
    with connect(proxy, sslmode="prefer") as connection:
        connection.execute("SELECT 1")
    asked, declined, startup, *_ = proxy.messages
    assert (asked, declined) == (Message(UP, "", 8), Message(DOWN, "", 1))
    assert (startup.direction, startup.kind) == (UP, "")


def test_a_session_ends_at_the_server_when_the_client_leaves(
    proxy: Proxy, direct: psycopg.Connection
) -> None:
    """With or without its farewell, the client's end is passed on."""
    connection = connect(proxy)
    pid = connection.info.backend_pid
    assert state(direct, pid) == "idle"
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire:
        wire.settimeout(LONG)
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(1) == b""
        wait_until(lambda: state(direct, pid) is None)
    connection.close()


def test_clients_are_reset_while_the_server_refuses() -> None:
    """A proxy before a stopped server is not silent: the connect fails at once."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()[1]) as proxy, pytest.raises(psycopg.OperationalError):
            connect(proxy)


# The two ends of the wire, seen byte by byte


class Wire:
    """A client's and a server's end, with the proxy between them."""

    def __init__(self, proxy: Proxy, listener: socket.socket) -> None:
        self.proxy = proxy
        self.client = socket.create_connection(("127.0.0.1", proxy.port), LONG)
        self.server, _ = listener.accept()
        self.server.settimeout(LONG)
        self.client.sendall(STARTUP)
        assert self.server.recv(100) == STARTUP

    def ends(self, direction: Direction) -> tuple[socket.socket, socket.socket, bytes]:
        """Who speaks in this direction, who listens, and what is said."""
        if direction is UP:
            return self.client, self.server, HELLO
        return self.server, self.client, WORLD


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        with Proxy(listener.getsockname()[1]) as proxy:
            wire = Wire(proxy, listener)
            with wire.client, wire.server:
                yield wire


def received(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += end.recv(count - len(data)) or b"(end)"
    return data


PLACES = [{"message": 2}, {"byte": 22}, {"byte": 27}]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("action", Action)
def test_what_is_before_the_cut_passes_and_nothing_after_it(
    wire: Wire, action: Action, direction: Direction, place: dict[str, int]
) -> None:
    """Each action, both ways, before a message and at a byte; both ends see what it promises."""
    wire.proxy.arm(FaultPoint(direction, action, **place))
    speaker, listener, words = wire.ends(direction)
    speaker.sendall(words * 3)
    passed = place.get("byte", 22)
    assert received(listener, passed) == (words * 3)[:passed]
    wait_until(lambda: wire.proxy.fault_done)
    for end in (speaker, listener):
        if action is Action.CLOSE:
            assert end.recv(1) == b""
        elif action is Action.RESET:
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        else:
            assert hears_nothing(end)
    if action is Action.DROP:
        listener.sendall(words)
        assert received(speaker, 11) == words
        assert hears_nothing(listener)
    elif action is Action.STALL:
        listener.sendall(words)
        assert hears_nothing(speaker)
    kinds = [message.kind for message in wire.proxy.messages if message.direction is direction]
    assert len(kinds) == 2


@pytest.mark.parametrize("direction", Direction)
def test_a_cut_after_the_last_byte_does_not_wait_for_more(wire: Wire, direction: Direction) -> None:
    """`byte` acts as soon as that many bytes are forwarded, `message` when the message has come."""
    speaker, listener, words = wire.ends(direction)
    wire.proxy.arm(FaultPoint(direction, Action.CLOSE, message=1))
    speaker.sendall(words)
    assert received(listener, 11) == words
    assert not wire.proxy.fault_done
    wire.proxy.arm(FaultPoint(direction, Action.CLOSE, byte=11))
    speaker.sendall(words)
    assert received(listener, 11) == words
    assert wire.proxy.fault_done
    assert listener.recv(1) == speaker.recv(1) == b""


@pytest.mark.parametrize("direction", Direction)
def test_byte_0_waits_for_the_first_word(wire: Wire, direction: Direction) -> None:
    """Arming does nothing by itself: a cut at byte 0 comes with what is said next."""
    speaker, listener, words = wire.ends(direction)
    wire.proxy.arm(FaultPoint(direction, Action.CLOSE, byte=0))
    assert not wire.proxy.fault_done
    speaker.sendall(words)
    assert listener.recv(1) == b""


def test_close_is_an_end_even_where_more_was_said(wire: Wire) -> None:
    """CLOSE: words that come too late to be read do not make a reset of it."""
    wire.proxy.on_fault = lambda: wire.client.sendall(HELLO)
    wire.proxy.arm(FaultPoint(UP, Action.CLOSE, message=0))
    wire.client.sendall(HELLO)
    wait_until(lambda: wire.proxy.fault_done)
    for end in (wire.client, wire.server):
        assert end.recv(1) == b""
        poll = select.poll()
        poll.register(end, 0)
        assert poll.poll(0) == []  # neither an error nor a hang-up of both directions


@pytest.mark.parametrize("action", [Action.STALL, Action.DROP])
@pytest.mark.parametrize("again", [Proxy.release, lambda proxy: proxy.arm(None)], ids=["release", "arm"])
def test_what_is_held_goes_with_release(
    wire: Wire, action: Action, again: Callable[[Proxy], None]
) -> None:
    """A held direction hides even the speaker's end, until `release()` or the next `arm()`."""
    wire.proxy.arm(FaultPoint(UP, action, byte=5))
    wire.client.sendall(HELLO)
    assert received(wire.server, 5) == HELLO[:5]
    wire.client.shutdown(socket.SHUT_WR)
    assert hears_nothing(wire.server)
    again(wire.proxy)
    assert wire.client.recv(1) == wire.server.recv(1) == b""


@pytest.mark.parametrize("direction", Direction)
def test_a_reset_is_passed_on_as_a_reset(wire: Wire, direction: Direction) -> None:
    """Without a cut: a peer that resets looks to the other one like itself."""
    speaker, listener, _ = wire.ends(direction)
    speaker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    speaker.close()
    with pytest.raises(ConnectionResetError):
        listener.recv(1)


def test_the_server_answers_a_client_that_has_ended(wire: Wire) -> None:
    """The client's end is passed on, and the other direction stays open."""
    wire.client.sendall(HELLO)
    wire.client.shutdown(socket.SHUT_WR)
    assert received(wire.server, 11) == HELLO
    assert wire.server.recv(1) == b""
    wire.server.sendall(WORLD)
    assert received(wire.client, 11) == WORLD


def test_an_unfinished_message_passes_when_its_speaker_ends(wire: Wire) -> None:
    """What was waiting for its rest is not lost."""
    wire.server.sendall(WORLD[:7])
    wire.server.close()
    assert received(wire.client, 7) == WORLD[:7]
    assert wire.client.recv(1) == b""


def test_what_was_said_before_arm_does_not_count(wire: Wire) -> None:
    """Bytes on their way when `arm()` is called have passed when it returns."""
    for _ in range(50):
        wire.proxy.arm(None)
        wire.client.sendall(HELLO)
        wire.proxy.arm(FaultPoint(UP, Action.CLOSE, byte=1))
        assert wire.proxy.messages == []
        assert received(wire.server, 11) == HELLO


# What a client of PostgreSQL sees


@pytest.mark.parametrize("place", [{"message": 0}, {"byte": 3}], ids=str)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("action", Action)
def test_a_statement_is_damaged(
    proxy: Proxy, direct: psycopg.Connection, action: Action, direction: Direction, place: dict[str, int]
) -> None:
    """Cut on its way the statement is never run; cut on the way back it was."""
    connection = connect(proxy)
    proxy.arm(FaultPoint(direction, action, **place))
    connection.pgconn.send_query(b"INSERT INTO t VALUES (1)")
    if action in (Action.STALL, Action.DROP):
        wait_until(lambda: proxy.fault_done)
        connection.pgconn.consume_input()
        assert hears_nothing(connection)
        assert connection.pgconn.is_busy()
        proxy.release()
    results = psycopg.generators.execute(connection.pgconn)
    with pytest.raises(psycopg.OperationalError, match="server closed the connection unexpectedly"):
        connection.wait(results)
    assert proxy.fault_done
    assert rows(direct) == (direction is DOWN)
    connection.close()
    with connect(proxy) as later:
        later.execute("SELECT 1")


def test_a_half_dead_path_still_speaks_the_other_way(proxy: Proxy, direct: psycopg.Connection) -> None:
    """DROP of the client's words: the server's last ones, and its end, arrive all the same."""
    connection = connect(proxy)
    proxy.arm(FaultPoint(UP, Action.DROP, message=0))
    connection.pgconn.send_query(b"INSERT INTO t VALUES (1)")
    wait_until(lambda: proxy.fault_done)
    direct.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    (result,) = connection.wait(psycopg.generators.execute(connection.pgconn))
    assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57P01"
    assert rows(direct) == 0
    connection.close()


def test_a_stalled_session_outlives_its_client(proxy: Proxy, direct: psycopg.Connection) -> None:
    """STALL: the server holds the transaction open until the connection is released."""
    connection = connect(proxy, autocommit=False)
    pid = connection.info.backend_pid
    connection.execute("INSERT INTO t VALUES (1)")
    proxy.arm(FaultPoint(UP, Action.STALL, message=0))
    connection.close()
    assert proxy.fault_done
    assert state(direct, pid) == "idle in transaction"
    proxy.release()
    wait_until(lambda: state(direct, pid) is None)


def test_one_connection_is_damaged_once(proxy: Proxy) -> None:
    """Counts are per connection, from `arm()` or its start; only the first to get there is hit."""
    one, two = connect(proxy), connect(proxy)
    proxy.arm(FaultPoint(UP, Action.CLOSE, message=2))
    for connection in (one, two, one, two):
        connection.execute("SELECT 1")
    assert {message.connection for message in proxy.messages} == {0, 1}
    with pytest.raises(psycopg.OperationalError):
        two.execute("SELECT 1")
    one.execute("SELECT 1")
    with connect(proxy) as three:
        three.execute("SELECT 1")
        three.execute("SELECT 1")
    one.close()
    two.close()


# COMMIT


def test_a_recording_is_the_same_from_run_to_run(proxy: Proxy, direct: psycopg.Connection) -> None:
    """Connect, transaction and farewell are recorded in order, and twice alike."""
    first = record(proxy)
    kinds = [(message.direction.value, message.kind) for message in first]
    assert kinds[:2] == [("frontend", ""), ("backend", "R")]
    sent = [kind for direction, kind in kinds if direction == "frontend"]
    assert sent == ["", "p", "p", "Q", "Q", "Q", "X"]
    assert "".join(kind for _, kind in kinds[-10:]) == "QCZQCZQCZX"
    assert all(record(proxy) == first for _ in range(5))


def fails(proxy: Proxy, number: int = 1) -> bool:
    """Whether the client got an error; in any case the conversation is over."""
    try:
        transfer(proxy, number)
    except psycopg.OperationalError:
        return True
    return False


def places_of(recording: list[Message]) -> tuple[int, int]:
    """Numbers of the client's COMMIT, and of the server's answer to it, in their directions."""
    kinds = [(message.direction, message.kind) for message in recording]
    assert kinds[-4:] == [(UP, "Q"), (DOWN, "C"), (DOWN, "Z"), (UP, "X")]
    directions = [direction for direction, _ in kinds]
    return directions.count(UP) - 2, directions.count(DOWN) - 2


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_the_server_never_had_the_commit(
    proxy: Proxy, direct: psycopg.Connection, action: Action
) -> None:
    """Cut before COMMIT is forwarded: an error, and no row."""
    commit, _ = places_of(record(proxy))
    direct.execute("TRUNCATE t")
    proxy.arm(FaultPoint(UP, action, message=commit))
    assert fails(proxy)
    assert rows(direct) == 0


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_the_answer_to_the_commit_is_lost(
    proxy: Proxy, direct: psycopg.Connection, action: Action
) -> None:
    """Cut before the answer to COMMIT is forwarded: an error, and the row is there."""
    _, answer = places_of(record(proxy))
    direct.execute("TRUNCATE t")
    proxy.arm(FaultPoint(DOWN, action, message=answer))
    assert fails(proxy)
    assert rows(direct) == 1


def test_every_boundary_of_a_conversation(proxy: Proxy, direct: psycopg.Connection) -> None:
    """Every cut is reached; the row is there if, and only if, COMMIT had reached the server."""
    recording = record(proxy)
    commit, answer = places_of(recording)
    points = points_at_boundaries(recording, Action.CLOSE)
    assert len(points) == len(recording) + 2
    for point in points:
        direct.execute("TRUNCATE t")
        proxy.arm(point)
        failed = fails(proxy)
        assert proxy.fault_done, point
        at_the_end = point.message is None
        if point.direction is UP:
            assert failed == (not at_the_end and point.message <= commit), point
            assert rows(direct) == (at_the_end or point.message > commit), point
        else:
            assert failed == (not at_the_end and point.message <= answer + 1), point
            assert rows(direct) == (at_the_end or point.message >= answer), point


def test_every_byte_of_the_commit(proxy: Proxy, direct: psycopg.Connection) -> None:
    """The row is there if, and only if, the last byte of COMMIT had reached the server."""
    recording = record(proxy)
    end = len(recording) - 2
    points = points_in_bytes(recording, end - 2, end, Action.CLOSE)
    commit, answer = ([point for point in points if point.direction is way] for way in (UP, DOWN))
    assert len(commit) == recording[end - 2].length == len("QllllCOMMIT0")
    assert len(answer) == len("CllllCOMMIT0") + len("ZllllI")
    for point in points:
        direct.execute("TRUNCATE t")
        proxy.arm(point)
        assert fails(proxy) == (point is not answer[-1]), point
        if point is commit[-1]:
            wait_until(lambda: rows(direct) == 1)
        assert rows(direct) == (point in answer or point is commit[-1]), point


# A crash at the moment of the point, and misuse


@pytest.fixture(scope="module")
def mortal() -> Iterator[Postgres]:
    """A server that tests crash."""
    with Postgres(password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("action", Action)
def test_the_server_crashes_at_the_cut(mortal: Postgres, action: Action, committed: bool) -> None:
    """`on_fault` runs before either side sees anything; nothing of the crash passes before it."""
    seen = []

    def crash() -> None:
        seen.append(hears_nothing(connection))
        mortal.stop("immediate")
        seen.append(hears_nothing(connection))

    mortal.start()
    with Proxy(mortal.port, on_fault=crash) as proxy:
        connection = connect(proxy, autocommit=False)
        connection.execute("CREATE TABLE IF NOT EXISTS t (id integer)")
        connection.execute("TRUNCATE t")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (1)")
        proxy.arm(FaultPoint(DOWN if committed else UP, action, message=0))
        connection.pgconn.send_query(b"COMMIT")
        wait_until(lambda: proxy.fault_done)
        assert not mortal.running
        assert seen == [True, True]
        if action in (Action.STALL, Action.DROP):
            proxy.release()
        with pytest.raises(psycopg.OperationalError):
            connection.wait(psycopg.generators.execute(connection.pgconn))
        connection.close()
        mortal.start()
        with connect(proxy) as connection:
            assert rows(connection) == committed


def test_an_error_of_on_cut_is_raised_by_close(postgres: Postgres) -> None:
    """The damage is done all the same, and what went wrong is told."""

    def broken() -> None:
        raise OSError("no such crash")

    proxy = Proxy(postgres.port, on_fault=broken)
    proxy.start()
    proxy.arm(FaultPoint(UP, Action.CLOSE, message=0))
    with pytest.raises(psycopg.OperationalError):
        connect(proxy)
    assert proxy.fault_done
    with pytest.raises(LabError, match="no such crash"):
        proxy.close()


def test_what_is_not_plain_postgresql_is_told(postgres: Postgres) -> None:
    """A client that begins TLS unasked is reset, and `close()` says why."""
    proxy = Proxy(postgres.port)
    proxy.start()
    with socket.create_connection(("127.0.0.1", proxy.port), LONG) as client:
        client.sendall(b"\x16\x03\x01\x00\xf0\x01")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(LabError, match="TLS"):
        proxy.close()


def open_here() -> tuple[int, int]:
    """Threads and file descriptors of this process."""
    return threading.active_count(), sum(1 for _ in Path("/dev/fd").iterdir())


def test_closing_leaves_nothing(postgres: Postgres) -> None:
    """Sessions, stalled ones and on_fault's thread included: no thread, no socket, no port."""
    before = open_here()
    proxy = Proxy(postgres.port, on_fault=lambda: None)
    for _ in range(2):
        proxy.start()
        idle, stalled = connect(proxy), connect(proxy)
        proxy.arm(FaultPoint(UP, Action.STALL, message=0))
        stalled.pgconn.send_query(b"SELECT 1")
        wait_until(lambda: proxy.fault_done)
        proxy.close()
        assert proxy.fault_done
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            stalled.wait(psycopg.generators.execute(stalled.pgconn))
        idle.close()
        stalled.close()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(proxy)
        assert open_here() == before


@pytest.mark.parametrize("place", [{}, {"message": 1, "byte": 1}, {"byte": -1}], ids=str)
def test_a_cut_is_at_one_place(place: dict[str, int]) -> None:
    """Neither a message nor a byte, both, or one before the beginning: refused."""
    with pytest.raises(LabError, match="either message= or byte="):
        FaultPoint(UP, Action.CLOSE, **place)
