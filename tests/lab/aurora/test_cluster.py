from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import psycopg
import pytest
import trustme

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, ClusterEvent, Shape, State
from lambdadb.lab.clock import LabClock
from lambdadb.lab.postgres import Postgres

from ...waiting import wait_until

FAST = 100.0
RESUME = 50.0  # lab seconds: half a second at the speed above


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that the clusters of this module stop and start."""
    with Postgres() as server:
        yield server


def paused(server: Postgres, shape: Shape = Shape.HOLD) -> Cluster:
    return Cluster(
        server, resume=RESUME, shape=shape, clock=LabClock(FAST), paused=True, random=Random(4)
    )


def connect(cluster: Cluster, **options: object) -> psycopg.Connection[tuple[object, ...]]:
    url = cluster.url().replace("+psycopg", "")
    return psycopg.connect(url, autocommit=True, **{"connect_timeout": 10, **options})  # type: ignore[arg-type]


def kinds(cluster: Cluster) -> list[str]:
    return [event.kind for event in cluster.events]


def test_a_held_connection_is_served_after_the_resume(server: Postgres) -> None:
    """HOLD: the first connect waits for the whole resume and then works."""
    with paused(server) as cluster:
        assert cluster.state is State.PAUSED
        assert not server.running
        with connect(cluster) as connection:
            assert cluster.state is State.AVAILABLE
            assert connection.execute("SELECT 1").fetchone() == (1,)
        resuming, available = cluster.events
        assert (resuming.kind, available.kind) == ("resuming", "available")
        assert available.at - resuming.at >= RESUME
        assert cluster.connects == 1


@pytest.mark.parametrize(
    ("shape", "first", "later"),
    [
        (Shape.REFUSE, "server closed the connection|reset by peer", "Connection refused"),
        (Shape.CLOSE, "server closed the connection unexpectedly", None),
        (Shape.RESET, "reset by peer|server closed the connection", None),
        (Shape.STARTING, "FATAL:  the database system is starting up", None),
        (
            Shape.NO_HBA,
            'FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "postgres", '
            'database "postgres", SSL encryption',
            None,
        ),
    ],
)
def test_a_connect_fails_in_the_chosen_shape_until_the_resume(
    server: Postgres, shape: Shape, first: str, later: str | None
) -> None:
    """Each quick failure reaches the client as such, at the waking and at a later attempt."""
    with paused(server, shape) as cluster:
        with pytest.raises(psycopg.OperationalError, match=first):
            connect(cluster)
        wait_until(lambda: cluster.state is State.RESUMING)
        if later:
            wait_until(lambda: cluster._listener.mode.value == "refuse")
        with pytest.raises(psycopg.OperationalError, match=later or first):
            connect(cluster)
        assert cluster.state is State.RESUMING
        wait_until(lambda: cluster.state is State.AVAILABLE)
        connect(cluster).close()


def test_a_silent_connection_is_never_answered(server: Postgres) -> None:
    """SILENT: who connected during the resume waits in vain even after it, others are served."""
    with paused(server, Shape.SILENT) as cluster:
        with socket.create_connection(("127.0.0.1", cluster.port)) as silent:
            silent.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
            wait_until(lambda: cluster.state is State.AVAILABLE)
            connect(cluster).close()
            silent.settimeout(0.2)
            with pytest.raises(TimeoutError):
                silent.recv(1)
        assert kinds(cluster) == ["resuming", "available"]


def test_a_silent_server_ends_in_the_clients_own_timeout(server: Postgres) -> None:
    """SILENT: psycopg's connect_timeout is what ends the attempt."""
    with (
        paused(server, Shape.SILENT) as cluster,
        pytest.raises(psycopg.errors.ConnectionTimeout),
    ):
        connect(cluster, connect_timeout=2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows unanswered SYNs")
def test_a_dropped_syn_wakes_and_is_never_answered(server: Postgres) -> None:
    """DROP: no attempt is accepted before the resume is over, yet the first one wakes."""
    with paused(server, Shape.DROP) as cluster:
        time.sleep(0.1)
        assert cluster.events == []
        with socket.socket() as client:
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.connect(("127.0.0.1", cluster.port))
        assert cluster.state is State.RESUMING
        assert cluster.connects == 0
        wait_until(lambda: cluster.state is State.AVAILABLE)
        connect(cluster).close()
        assert cluster.connects == 1


def test_mixed_failures_differ_and_end(server: Postgres) -> None:
    """MIX: attempts during one resume meet different failures; after it they succeed."""
    seen = set()
    with paused(server, Shape.MIX) as cluster:
        end = time.monotonic() + 10.0
        while cluster.state is not State.AVAILABLE:
            assert time.monotonic() < end
            seen.add(outcome(cluster))
        assert len(seen) >= 4
        connect(cluster).close()


def outcome(cluster: Cluster) -> str:
    """What one impatient raw client meets."""
    packet = b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
    try:
        with socket.create_connection(("127.0.0.1", cluster.port), timeout=0.03) as client:
            client.sendall(packet)
            return client.recv(1000)[:60].decode(errors="replace") or "end"
    except OSError as error:
        return type(error).__name__


def test_an_open_connection_keeps_it_from_pausing_and_is_named(server: Postgres) -> None:
    """Cold: an idle connection blocks the pause, is reported once; after its end it pauses."""
    heard: list[ClusterEvent] = []
    with Cluster(server, auto_pause=20.0, clock=LabClock(FAST), on_event=heard.append) as cluster:
        connection = connect(cluster, application_name="orders-api")
        wait_until(lambda: cluster.clock.now() > 60.0)
        assert cluster.state is State.AVAILABLE
        assert kinds(cluster) == ["blocked"]
        assert "1 of orders-api, idle for 2" in cluster.events[0].reason
        (session,) = cluster.sessions()
        assert session.application_name == "orders-api"
        assert session.idle > 20.0
        closed = cluster.clock.now()
        connection.close()
        wait_until(lambda: cluster.state is State.PAUSED)
        assert cluster.events[-1].at - closed >= 20.0
        assert cluster.sessions() == []
        assert heard == cluster.events
    assert 0.0 < cluster.paused_share() < 1.0


def test_a_busy_connection_is_no_blocker(server: Postgres) -> None:
    """A connection that is used within the pause's time is real use and not reported."""
    with Cluster(server, auto_pause=30.0, clock=LabClock(FAST)) as cluster:
        with connect(cluster) as connection:
            while cluster.clock.now() < 90.0:
                connection.execute("SELECT 1")
        assert cluster.events == []


def test_a_hot_cluster_never_pauses(server: Postgres) -> None:
    """Without auto_pause nothing happens, however long nobody connects."""
    with Cluster(server, clock=LabClock(1e6)) as cluster:
        wait_until(lambda: cluster.clock.now() > 200_000.0)
        assert cluster.state is State.AVAILABLE
        assert cluster.events == []
        assert cluster.paused_share() == 0.0


def test_bad_credentials_wake_it_too() -> None:
    """A connect with a wrong password resumes the cluster, and is refused after the resume."""
    with Postgres(password="right") as server, paused(server) as cluster:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(cluster, password="wrong")
        assert kinds(cluster) == ["resuming", "available"]


def test_a_deep_pause_takes_the_longer_resume(server: Postgres) -> None:
    """After more than deep_after seconds of pause a resume takes deep_resume seconds."""
    # Both are least times: a busy machine may start the server late.
    options = {"resume": 30.0, "deep_after": 40.0, "deep_resume": 500.0, "auto_pause": 10.0}
    with Cluster(server, **options, clock=LabClock(FAST), paused=True) as cluster:  # type: ignore[arg-type]
        connect(cluster).close()
        assert resume_time(cluster) >= 30.0
        wait_until(lambda: cluster.state is State.PAUSED)
        paused_at = cluster.events[-1].at
        wait_until(lambda: cluster.clock.now() - paused_at > 40.0)
        connect(cluster).close()
        assert resume_time(cluster) >= 500.0


def resume_time(cluster: Cluster) -> float:
    at = {event.kind: event.at for event in cluster.events}
    return at["available"] - at["resuming"]


def test_a_pause_skips_the_ids_that_the_published_experiment_skipped() -> None:
    """Cold ids go 793, 826 over a pause; hot ids 50, 51 without one."""
    with (
        Postgres() as server,
        Cluster(server, resume=0.0, auto_pause=10.0, clock=LabClock(FAST)) as cluster,
    ):
        seed(cluster, 792)
        wait_until(lambda: cluster.state is State.PAUSED)
        ids = []
        for _ in range(2):
            wait_until(lambda: cluster.state is State.PAUSED)
            ids.append(insert(cluster))
        assert ids == [793, 826]
    with Postgres() as server, Cluster(server) as cluster:
        seed(cluster, 49)
        assert [insert(cluster), insert(cluster)] == [50, 51]


def seed(cluster: Cluster, last: int) -> None:
    with connect(cluster) as connection:
        connection.execute("CREATE TABLE t (id serial PRIMARY KEY)")
        connection.execute("SELECT setval('t_id_seq', %s)", [last])


def insert(cluster: Cluster) -> object:
    with connect(cluster) as connection:
        row = connection.execute("INSERT INTO t DEFAULT VALUES RETURNING id").fetchone()
        assert row is not None
        return row[0]


def test_paused_share_is_the_share_of_lab_time(server: Postgres) -> None:
    """A cluster that was paused all the time has share 1, one that resumed has less since."""
    with paused(server) as cluster:
        start = cluster.clock.now()
        wait_until(lambda: cluster.clock.now() > start + 20.0)
        assert cluster.paused_share() == 1.0
        connect(cluster).close()
        assert cluster.paused_share(since=cluster.events[-1].at) == 0.0
        expected = (cluster.events[0].at - start) / (cluster.clock.now() - start)
        assert cluster.paused_share(since=start) == pytest.approx(expected, rel=0.1)


def test_round_trips_are_counted_on_the_wire(server: Postgres) -> None:
    """Login by password is 3 round trips, encryption that is refused 1, a statement 1, goodbye 0."""
    with Cluster(server) as cluster:
        connection = connect(cluster, sslmode="disable", gssencmode="disable")
        assert cluster.round_trips == 3
        connection.execute("SELECT 1")
        assert cluster.round_trips == 4
        connection.close()
        wait_until(lambda: not cluster.sessions())
        assert cluster.round_trips == 4
        connect(cluster, sslmode="prefer", gssencmode="disable").close()
        assert cluster.round_trips == 8
        assert cluster.connects == 2


def test_network_delay_keeps_the_data_in_order(server: Postgres) -> None:
    """With a delay every statement takes at least the round trip, and big answers stay whole."""
    with Cluster(server, round_trip=0.05) as cluster, connect(cluster) as connection:
        before = time.monotonic()
        connection.execute("SELECT 1")
        assert time.monotonic() - before >= 0.05
        cursor = connection.execute("SELECT string_agg(i::text, ',') FROM generate_series(1,200000) i")
        row = cursor.fetchone()
        assert row == (",".join(map(str, range(1, 200001))),)


def test_a_cancel_request_reaches_the_server(server: Postgres) -> None:
    """A statement is cancelled through the cluster."""
    with Cluster(server) as cluster, connect(cluster) as connection:
        timer = threading.Timer(0.2, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(20)")
        timer.join()


def test_sessions_ended_by_the_server_are_gone(server: Postgres) -> None:
    """idle_session_timeout ends a session for the cluster too, and the client reads why."""
    with Cluster(server) as cluster:
        connection = connect(cluster, options="-c idle_session_timeout=100")
        assert len(cluster.sessions()) == 1
        wait_until(lambda: cluster.sessions() == [])
        with pytest.raises(psycopg.errors.IdleSessionTimeout):
            connection.execute("SELECT 1")


def test_a_port_in_use_is_named(postgres: Postgres, server: Postgres) -> None:
    """Starting on a taken port says which one and what to do."""
    cluster = Cluster(server, port=postgres.port)
    with pytest.raises(LabError, match=f"Port {postgres.port} on 127.0.0.1 is in use.*another"):
        cluster.start()


def test_close_leaves_nothing(server: Postgres) -> None:
    """After close() no thread, socket or port of the cluster is left, clients see the end."""
    threads = set(threading.enumerate())
    cluster = Cluster(server)
    cluster.start()
    connection = connect(cluster)
    cluster.close()
    cluster.close()
    assert set(threading.enumerate()) == threads
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(cluster)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_pauses_and_failures_leak_no_file(server: Postgres) -> None:
    """A cluster that resumed in the worst shapes and was closed has given every socket back."""
    before = open_files()
    for shape in (Shape.REFUSE, Shape.DROP, Shape.MIX):
        with paused(server, shape) as cluster:
            for _ in range(3):
                with suppress(OSError), socket.create_connection(("127.0.0.1", cluster.port), 0.05):
                    pass
            wait_until(lambda cluster=cluster: cluster.state is State.AVAILABLE)  # type: ignore[misc]
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_noise_on_the_port_disturbs_nobody(server: Postgres) -> None:
    """Clients that speak something else are dropped, and the cluster goes on."""
    with Cluster(server) as cluster:
        with socket.create_connection(("127.0.0.1", cluster.port), 5.0) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""
        connect(cluster).close()


def test_a_server_that_does_not_come_back_fails_loudly(tmp_path: Path) -> None:
    """When the server cannot be started on resume, an event and close() say so."""
    with Postgres() as server:
        cluster = paused(server)
        cluster.start()
        assert server._directory is not None
        with (server._directory.path / "data" / "postgresql.conf").open("a") as file:
            file.write("shared_buffers = 'lots'\n")
        with pytest.raises(psycopg.OperationalError):
            connect(cluster)
        wait_until(lambda: "failed" in kinds(cluster))
        with pytest.raises(LabError, match=r"(?s)did not start.*lots"):
            cluster.close()


def encrypted(folder: Path) -> tuple[ssl.SSLContext, dict[str, object]]:
    """The server's side of TLS, and what makes a client verify it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    return context, {"sslmode": "verify-full", "sslrootcert": folder / "root.pem"}


def test_a_held_connection_over_tls(server: Postgres, tmp_path: Path) -> None:
    """The answer to the wish for TLS is held, too; then each flight of the handshake is a round trip."""
    context, verified = encrypted(tmp_path)
    cluster = Cluster(server, resume=RESUME, clock=LabClock(FAST), paused=True, tls=context)
    with cluster:
        with connect(cluster, **verified) as connection:
            assert connection.pgconn.ssl_in_use
            # The wish, the client's hello, its last flight with the startup packet, and two messages
            # of SCRAM. One more if the client's first key is of a group that the server does not have.
            assert cluster.round_trips in (5, 6)
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert [session.application_name for session in cluster.sessions()] == [""]
        wait_until(lambda: not cluster.sessions())
        assert kinds(cluster) == ["resuming", "available"]


def test_tls_delays_each_flight(server: Postgres, tmp_path: Path) -> None:
    """A network's delay counts for the handshake as for everything else."""
    context, verified = encrypted(tmp_path)
    with Cluster(server, tls=context, round_trip=0.05) as cluster:
        began = time.monotonic()
        with connect(cluster, **verified):
            assert time.monotonic() - began >= cluster.round_trips * 0.05


def test_a_client_that_refuses_the_certificate(server: Postgres, tmp_path: Path) -> None:
    """It gets its own error, the cluster goes on, and a client without TLS is served as well."""
    context, verified = encrypted(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = encrypted(tmp_path / "other")
    with Cluster(server, tls=context) as cluster:
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            connect(cluster, **other)
        with connect(cluster, sslmode="disable") as plain, connect(cluster, **verified) as safe:
            assert not plain.pgconn.ssl_in_use
            assert safe.pgconn.ssl_in_use
